"""One case: its steps are done in order, and what came back is reduced to what is compared."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from clients import http_call, rest, shown, websocket
from paths import MISSING, drop, holds, walk
from systems import Ray
from yaml_subset import parse_yaml

NOISE_LABELS = {"SessionName", "NodeAddress", "NodeId", "Version", "WorkerId", "Component", "Pid",
                "IsHeadNode", "ray_io_cluster", "JobId", "le", "RayNodeType", "otel_scope_name",
                "otel_scope_schema_url", "otel_scope_version"}


def has(labels, want):
    return all(labels.get(k) == v for k, v in want.items())


class Case:
    def __init__(self, folder, system, args):
        self.folder, self.system, self.args = folder, system, args
        self.name = os.path.basename(folder)
        self.vars, self.background, self.doubts = {}, {}, []
        self.dirty = False
        self.until = None  # expected answers: stop at the first that differs

    def read(self, name, default=None):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return default
        with open(path) as f:
            return json.load(f)

    def config(self, source):
        """Config of a file name or inline object, with ${PORT} and ${DIR} replaced."""
        if isinstance(source, str):
            with open(os.path.join(self.folder, source)) as f:
                text = f.read()
        else:
            text = json.dumps(source)
        text = text.replace("${DIR}", self.work)
        port = str(self.system.http_port)
        return text, parse_yaml(text.replace('"${PORT}"', port).replace("${PORT}", port))

    def run(self):
        steps = self.read("steps.json")
        meta = self.read("case.json", {})
        self.work = tempfile.mkdtemp(prefix="golden-%s-" % self.name)
        shutil.copytree(self.folder, self.work, dirs_exist_ok=True)
        results = []
        try:
            self.system.assign()
            for name in os.listdir(self.work):
                if name.endswith(".yaml"):
                    path = os.path.join(self.work, name)
                    with open(path) as f:
                        text = f.read()
                    with open(path, "w") as f:
                        f.write(text.replace("${DIR}", self.work)
                                .replace("${PORT}", str(self.system.http_port)))
            text, config = self.config("app.yaml")
            self.system.begin(self.work, text, config, meta)
            results.append(self.ready(config, meta))
            for step in steps:
                if self.differs(results):
                    break
                results.append(self.step(step))
        finally:
            for t, _ in self.background.values():
                t.join(1)
            if isinstance(self.system, Ray):
                self.system.end(self.dirty or meta.get("fresh", False))
            else:
                self.system.end()
            if not self.args.keep:
                shutil.rmtree(self.work, ignore_errors=True)
        return results

    def differs(self, results):
        """With `until` set: whether the last answer already differs from the expected one."""
        n = len(results)
        return self.until is not None and (
            n > len(self.until) or json.loads(json.dumps(results[-1])) != self.until[n - 1])

    # -- readiness

    def settle(self, names, timeout):
        """Wait until no application is on its way; returns {app: status}."""
        deadline = time.monotonic() + timeout
        while True:
            apps = self.system.details().get("applications", {})
            got = {n: a["status"] for n, a in apps.items()}
            if set(names) == set(got) and not set(got.values()) & {"DEPLOYING", "DELETING",
                                                                   "NOT_STARTED"}:
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        prefixes = {a.get("route_prefix"): n for n, a in apps.items()
                    if a["status"] == "RUNNING" and a.get("route_prefix")}
        end = time.monotonic() + min(20, timeout)
        while prefixes and time.monotonic() < end:
            try:
                status, _, body = rest(self.system.http_port, "GET", "/-/routes", timeout=5)
                if status == 200 and all(json.loads(body).get(p) == n for p, n in prefixes.items()):
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.1)
        return got

    def ready(self, config, meta):
        names = [a.get("name", "default") for a in config.get("applications") or []]
        if meta.get("wait", True) is False:
            return {"do": "start"}
        return {"do": "start", "applications": self.settle(names, meta.get("timeout", 120))}

    # -- steps

    def fill(self, value):
        if isinstance(value, str):
            whole = re.fullmatch(r"\$\{(\w+)\}", value)
            if whole and whole.group(1) in self.vars:
                return self.vars[whole.group(1)]
            value = value.replace("${DIR}", self.work)
            return re.sub(r"\$\{(\w+)\}", lambda m: str(self.vars.get(m.group(1), m.group(0))),
                          value)
        if isinstance(value, list):
            return [self.fill(v) for v in value]
        if isinstance(value, dict):
            return {k: self.fill(v) for k, v in value.items()}
        return value

    def step(self, step):
        kind = step.get("do", "http")
        step = dict(self.fill({k: v for k, v in step.items() if k != "config"}),
                    **({"config": step["config"]} if "config" in step else {}))
        out = {"do": kind}
        if "why" in step:
            out["why"] = step["why"]
        if step.get("background"):
            box = {}
            t = threading.Thread(target=lambda: box.update(getattr(self, "do_" + kind)(step)),
                                 daemon=True)
            self.background[step["background"]] = (t, box)
            t.start()
            return out
        out.update(getattr(self, "do_" + kind)(step))
        return out

    def select(self, step, full):
        """Reduce a full answer to what is compared."""
        raw = full.pop("raw", None)
        if raw is not None:
            text = raw.decode("utf-8", "replace")
            if raw[:1] in b"[{\"0123456789-tfn":
                try:
                    full["json"] = json.loads(text)
                except ValueError:
                    pass
        for var, path in step.get("save", {}).items():
            self.vars[var] = walk(full, path)
        out = {}
        paths = step.get("pick")
        ignore = step.get("ignore", [])
        if "error" in full or "aborted" in full:
            out.update(full)
        elif paths is not None:
            for p in paths:
                if p == "body":
                    out["body"] = shown(raw)
                else:
                    out[p] = walk(full, p)
        else:
            for k in ("status", "type", "headers", "subprotocol", "received", "broken"):
                if full.get(k) not in (None, {}):
                    out[k] = full[k]
            if raw is not None and "match" not in step:
                if any(p.startswith("json.") for p in ignore):
                    out["json"] = json.loads(json.dumps(full.get("json", MISSING)))
                elif step.get("replace"):
                    for pat, rep in step["replace"]:
                        text = re.sub(pat, rep, text)
                    out["body"] = text
                else:
                    out["body"] = shown(raw)
            for p in step.get("also", []):
                out[p] = walk(full, p)
        for p in ignore:
            drop(out, p.split("."))
        if "match" in step and raw is not None:
            out["matches"] = {p: bool(re.search(p, text, re.S)) for p in step["match"]}
            self.doubt(out["matches"], step)
        if "relate" in step:
            out["relate"] = {}
            for expr in step["relate"]:
                left, op, right = expr.split(None, 2)
                right = self.vars[right] if right in self.vars else json.loads(right)
                out["relate"][expr] = holds(walk(full, left), op, right)
            self.doubt(out["relate"], step)
        return out

    def doubt(self, flags, step):
        for k, v in flags.items():
            if v is False:
                self.doubts.append("%s is false in %s" % (k, json.dumps(step)[:160]))

    def do_http(self, step):
        return self.select(step, http_call(self.system.http_port, step))

    def do_join(self, step):
        t, box = self.background[step["name"]]
        t.join(step.get("timeout", 90))
        return dict(box) if not t.is_alive() else {"error": "still running"}

    def do_session(self, step):
        """Several requests over one connection."""
        conn = http.client.HTTPConnection("127.0.0.1", self.system.http_port, timeout=60)
        conn.connect()
        sock, answers, same = conn.sock, [], True
        for r in step["requests"]:
            answers.append(self.select(r, http_call(self.system.http_port, r, conn)))
            same = same and conn.sock is sock
        conn.close()
        return {"answers": answers, "one_connection": same}

    def do_raw(self, step):
        """Bytes over TCP; the answer up to the server's close."""
        data = b""
        with socket.create_connection(("127.0.0.1", self.system.http_port),
                                      timeout=step.get("timeout", 10)) as s:
            s.sendall(step["send"].encode("latin-1"))
            try:
                while True:
                    part = s.recv(65536)
                    if not part:
                        break
                    data += part
            except (socket.timeout, ConnectionError):
                pass
        text = data.decode("latin-1")
        return {"first_line": text.split("\r\n")[0],
                "matches": {p: bool(re.search(p, text, re.S)) for p in step.get("match", [])}}

    def do_many(self, step):
        requests = step.get("requests") or [step["request"]] * step["n"]
        requests = [json.loads(json.dumps(r).replace("${i}", str(i)))
                    for i, r in enumerate(requests)]
        full = [None] * len(requests)
        gate = threading.Semaphore(step.get("concurrency", len(requests)))

        def one(i):
            with gate:
                full[i] = http_call(self.system.http_port, requests[i])

        threads = []
        for i in range(len(requests)):
            threads.append(threading.Thread(target=one, args=(i,), daemon=True))
            threads[-1].start()
            if step.get("stagger"):
                time.sleep(step["stagger"])
        for t in threads:
            t.join()
        answers = [self.select(requests[i], full[i]) for i in range(len(requests))]
        if "collect" in step:
            out = {}
            for name, expr in step["collect"].items():
                out[name] = self.collect(expr, full)
                if out[name] is False:
                    self.doubts.append("%s is false" % name)
            return {"collect": out}
        if step.get("ordered"):
            return {"answers": answers}
        count = {}
        for a in answers:
            key = json.dumps(a, sort_keys=True)
            count[key] = count.get(key, 0) + 1
        return {"answers": [{"times": n, "answer": json.loads(k)}
                            for k, n in sorted(count.items())]}

    def collect(self, expr, results):
        """'distinct P', 'max P', 'min P', 'sum P', 'list P' (sorted), 'count P == V'.

        Each may end in '>= N'.
        """
        m = re.fullmatch(r"count (\S+) (==|!=|>=|<=|has) (.*?)(?: (>=|<=|==|>|<) (\d+))?", expr)
        if m:
            value = sum(holds(walk(r, m.group(1)), m.group(2), json.loads(m.group(3)))
                        for r in results)
            return value if not m.group(4) else holds(value, m.group(4), int(m.group(5)))
        m = re.fullmatch(r"(\w+) (\S+)(?: (>=|<=|==|>|<) ([\d.]+))?", expr)
        values = [walk(r, m.group(2)) for r in results]
        if m.group(1) != "distinct":
            values = [v for v in values if v != MISSING]
        value = {"distinct": lambda: len({json.dumps(v, sort_keys=True) for v in values}),
                 "max": lambda: max(values), "min": lambda: min(values), "sum": lambda: sum(values),
                 "list": lambda: sorted(values, key=str)}[m.group(1)]()
        return value if not m.group(3) else holds(value, m.group(3), float(m.group(4)))

    def do_ws(self, step):
        return self.select(step, websocket(self.system.http_port, step))

    def do_put(self, step):
        if "raw" in step:
            status, ctype, body = self.system.put(step["raw"].encode())
            config = {}
        else:
            _, config = self.config(step["config"])
            status, ctype, body = self.system.put(self.system.prepare(config, self.work))
        full = {"status": status, "type": ctype, "raw": body}
        if "match" not in step and "pick" not in step:
            step = dict(step, pick=["status"])
        out = self.select(step, full)
        if status == 200 and step.get("wait", True):
            names = [a.get("name", "default") for a in config.get("applications") or []]
            out["applications"] = self.settle(names + step.get("others", []),
                                              step.get("timeout", 90))
        return out

    def do_rest(self, step):
        self.dirty = self.dirty or step.get("method") == "DELETE"
        status, ctype, body = rest(self.system.dash_port, step.get("method", "GET"), step["path"],
                                   step.get("json"))
        return self.select(step, {"status": status, "type": ctype, "raw": body})

    def do_delete(self, step):
        return self.do_rest(dict(step, method="DELETE", path="/api/serve/applications/"))

    def do_status(self, step):
        full = self.system.details()
        out = {"get": {p: walk(full, p) for p in step["get"]}}
        for var, path in step.get("save", {}).items():
            self.vars[var] = walk(full, path)
        if "match" in step:
            out["matches"] = {}
            for path, pats in step["match"].items():
                for pat in pats:
                    out["matches"][path + " ~ " + pat] = bool(
                        re.search(pat, str(walk(full, path)), re.S))
            self.doubt(out["matches"], step)
        return out

    def do_wait(self, step):
        """Poll a status path or an HTTP answer until a relation holds."""
        deadline = time.monotonic() + step.get("timeout", 60)
        expr = step["until"]
        path, op, right = expr.split(None, 2)
        right = self.vars[right] if right in self.vars else json.loads(right)
        while True:
            if "http" in step:
                full = http_call(self.system.http_port, dict({"timeout": 15}, **step["http"]))
                raw = full.pop("raw", None)
                if raw is not None:
                    full["text"] = raw.decode("utf-8", "replace")
                    try:
                        full["json"] = json.loads(full["text"])
                    except ValueError:
                        pass
            else:
                full = self.system.details()
            if holds(walk(full, path), op, right):
                for var, p in step.get("save", {}).items():
                    self.vars[var] = walk(full, p)
                return {"reached": True}
            if time.monotonic() > deadline:
                self.doubts.append("never reached: %s, last %r" % (expr, walk(full, path)))
                return {"reached": False}
            time.sleep(step.get("every", 0.2))

    def do_kill(self, step):
        pid = int(step["pid"])
        if pid <= 1 or pid == os.getpid():
            return {"error": "not a replica pid"}
        os.kill(pid, signal.SIGKILL)
        return {"killed": True}

    def do_sleep(self, step):
        time.sleep(step["seconds"])
        return {}

    def do_metrics(self, step):
        deadline = time.monotonic() + step.get("timeout", 40)
        want = step.get("labels", {})
        while True:
            seen, values = {}, {}
            for line in self.system.metrics().splitlines():
                m = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
                if not m or line.startswith("#"):
                    continue
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m.group(2) or ""))
                name = m.group(1)
                if name in step.get("names", []) and has(labels, want):
                    seen.setdefault(name, set()).update(labels.keys() - NOISE_LABELS)
                for key, spec in step.get("values", {}).items():
                    if name == spec["name"] and has(labels, spec.get("labels", {})):
                        values[key] = values.get(key, 0) + float(m.group(3))
            done = all(n in seen for n in step.get("names", [])) and \
                all(values.get(k) == spec.get("is", values.get(k)) and k in values
                    for k, spec in step.get("values", {}).items())
            if done or time.monotonic() > deadline:
                if not done:
                    self.doubts.append("metrics missing: %s %s" % (
                        [n for n in step.get("names", []) if n not in seen], values))
                return {"labels": {n: sorted(seen[n]) if n in seen else MISSING
                                   for n in step.get("names", [])},
                        "values": {k: values.get(k) for k in step.get("values", {})}}
            time.sleep(0.5)

    def command(self, cmd, step):
        try:
            p = subprocess.run(cmd, cwd=self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, timeout=step.get("timeout", 120),
                               env=dict(self.system.env(self.work), **step.get("env", {})))
        except subprocess.TimeoutExpired:
            return {"error": "no exit within the time limit"}
        except FileNotFoundError:
            return {"error": "command not found: " + os.path.basename(cmd[0])}
        out, text = {"exit": p.returncode}, p.stdout.decode("utf-8", "replace")
        both = text + p.stderr.decode("utf-8", "replace")
        if "prefix" in step:
            out["lines"] = [line for line in text.splitlines() if line.startswith(step["prefix"])]
        if "yaml" in step:
            try:
                doc = parse_yaml(re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:.*\n", "", text))  # log lines
                out["yaml"] = {path: walk(doc, path) for path in step["yaml"]}
            except (ValueError, IndexError) as e:
                out["yaml"] = "unreadable: %s" % e
        if "match" in step:
            out["matches"] = {pat: bool(re.search(pat, both, re.S)) for pat in step["match"]}
            self.doubt(out["matches"], step)
        if p.returncode and not step.get("fails"):
            self.doubts.append("exit %s: %s" % (p.returncode, both[-1500:]))
        return out

    def do_cli(self, step):
        return self.command(self.system.serve_cli() + step["args"], step)

    def do_script(self, step):
        self.dirty = True
        return self.command(self.system.script() + [step["file"]] + step.get("args", []), step)
