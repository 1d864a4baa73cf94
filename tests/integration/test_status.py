#!/usr/bin/env python3
"""rserve status, the REST API and /metrics tell the truth."""

import json
import os
import re
import signal
import subprocess
import time
from typing import Any, Dict

from harness import RSERVE, Load, ServeTest, Server, call, free_port, main, rserve, wait_until

APP = """\
    import os
    from ray import serve

    @serve.deployment
    class Inner:
        def __call__(self, x):
            return x + 1

    @serve.deployment(num_replicas=2)
    class Outer:
        def __init__(self, inner):
            self.inner, self.word = inner, "none"

        def reconfigure(self, config):
            self.word = config["word"]

        async def __call__(self, request):
            if "fail" in request.query_params:
                raise ValueError("on purpose")
            return {"n": await self.inner.remote(1), "word": self.word}

    app = Outer.bind(Inner.bind())
    """


class Status(ServeTest):
    def status(self, s: Server, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard, *args, env=env)

    def test_nothing_runs(self) -> None:
        r = rserve("status", "--address", "http://127.0.0.1:%d" % free_port())
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stdout + r.stderr, "127.0.0.1")

    def test_address_from_the_environment(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        r = rserve("status", env={"RAY_DASHBOARD_ADDRESS": "http://127.0.0.1:%d" % s.dashboard})
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("Outer", r.stdout)

    def test_text(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        r = self.status(s)
        self.assertEqual(r.returncode, 0, r.stderr)
        for part in ("app", "RUNNING", "Outer", "Inner", "HEALTHY"):
            self.assertIn(part, r.stdout)
        for deployment in ("Outer", "Inner"):
            for pid in s.pids("app", deployment):
                self.assertIn(str(pid), r.stdout)
        self.assertNotIn("\x1b", r.stdout, "no colours in a pipe")

    def test_no_color(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        for env, coloured in (({"NO_COLOR": "1"}, False), ({}, True)):
            with self.subTest(env=env):
                text = self.on_terminal([RSERVE, "status", "--address",
                                         "http://127.0.0.1:%d" % s.dashboard], env)
                self.assertIn("RUNNING", text)
                self.assertEqual("\x1b[" in text, coloured, text)

    def on_terminal(self, command: list, env: Dict[str, str]) -> str:
        import pty
        try:
            master, slave = pty.openpty()
        except OSError as e:  # a bare chroot without /dev/pts
            self.skipTest("no terminal to be had: %s" % e)
        environ = dict(os.environ, TERM="xterm", **env)
        if "NO_COLOR" not in env:
            environ.pop("NO_COLOR", None)
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                             env=environ)
        os.close(slave)
        data = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            data += part
        os.close(master)
        self.assertEqual(p.wait(20), 0, data)
        return data.decode()

    def test_json(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        told = json.loads(self.status(s, "--json").stdout)
        app = told["applications"]["app"]
        self.assertEqual(app["status"], "RUNNING")
        outer = app["deployments"]["Outer"]
        self.assertEqual((outer["status"], outer["target_num_replicas"]), ("HEALTHY", 2))
        self.assertEqual({r["pid"] for r in outer["replicas"]}, s.pids("app", "Outer"))

    def test_yaml(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        text = self.status(s, "--yaml").stdout
        self.assertRegex(text, r"(?m)^applications:\n  app:\n    status: RUNNING\n")
        self.assertRegex(text, r"(?m)^      Outer:\n        status: HEALTHY\n"
                               r"        status_trigger: CONFIG_UPDATE_COMPLETED\n"
                               r"        replica_states:\n          RUNNING: 2\n")
        self.assertRegex(text, r"(?m)^proxies:\n  \S+: HEALTHY\n")
        self.assertRegex(text, r"(?m)^target_capacity: null$")

    def test_watch(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        path = os.path.join(self.folder, "watch.txt")
        with open(path, "wb") as out:
            p = subprocess.Popen([RSERVE, "status", "--watch", "--address",
                                  "http://127.0.0.1:%d" % s.dashboard], stdout=out,
                                 stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.addCleanup(p.kill)

        def times() -> int:
            with open(path, encoding="utf-8") as f:
                return f.read().count("Inner")
        wait_until("it shows the status again", lambda: times() >= 2)
        p.send_signal(signal.SIGINT)
        p.wait(10)

    def test_truth_while_a_replica_is_gone(self) -> None:
        s = self.serve_code("""\
            import os, time
            from ray import serve

            @serve.deployment
            class Slow:
                def __init__(self):
                    flag = os.path.join(os.path.dirname(__file__), "again")
                    if os.path.exists(flag):
                        time.sleep(2)
                    open(flag, "w").close()

                def __call__(self, request):
                    return os.getpid()

            app = Slow.bind()
            """)
        victim = s.call().json()
        os.kill(victim, signal.SIGKILL)
        wait_until("it is noticed", lambda: not s.pids("app", "Slow"), 3)
        self.assertTrue(s.replicas("app", "Slow", "STARTING"))
        self.assertNotEqual(s.app("app")["deployments"]["Slow"]["status"], "HEALTHY")
        self.assertIn("STARTING", self.status(s).stdout)
        self.assertNotEqual(s.call().json(), victim, "the request waited for the new one")
        s.wait_apps("RUNNING")


class Rest(ServeTest):
    def config(self, word: str, prefix: str = "/", **options: Any) -> Dict[str, Any]:
        outer = dict(options, name="Outer", user_config={"word": word})
        return {"applications": [{"name": "app", "route_prefix": prefix,
                                  "import_path": "served:app", "deployments": [outer]}]}

    def begin(self) -> Server:
        self.write_app(APP, "- {name: Outer, user_config: {word: first}}\n")
        return self.serve(os.path.join(self.folder, "app.yaml"), "--num-cpus", "8",
                          cwd=self.folder)

    def test_details(self) -> None:
        s = self.begin()
        answer = s.rest()
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["content-type"].startswith("application/json"))
        told = answer.json()
        for key in ("controller_info", "proxy_location", "http_options", "grpc_options", "proxies",
                    "target_capacity", "target_groups", "applications"):
            self.assertIn(key, told)
        self.assertEqual(told["http_options"]["port"], s.port)
        app = told["applications"]["app"]
        self.assertEqual(app["deployed_app_config"]["import_path"], "served:app")
        self.assertEqual(app["source"], "declarative")
        replica = app["deployments"]["Inner"]["replicas"][0]
        for key in ("node_id", "node_ip", "replica_id", "state", "pid", "start_time_s",
                    "actor_name", "log_file_path"):
            self.assertIn(key, replica)
        self.assertLess(abs(time.time() - replica["start_time_s"]), 60)
        self.assertTrue(os.path.exists("/proc/%d" % replica["pid"]))

    def test_put_changes_user_config_in_place(self) -> None:
        s = self.begin()
        self.assertEqual(s.call().json(), {"n": 2, "word": "first"})
        pids = s.pids("app", "Outer")
        self.assertEqual(s.rest("PUT", self.config("second")).status, 200)
        wait_until("the word changes", lambda: {s.call().json()["word"] for _ in range(6)}
                   == {"second"})
        # while the answer to RECONFIGURE is on its way a replica is UPDATING
        wait_until("the same processes run", lambda: s.pids("app", "Outer") == pids)

    def test_put_scales(self) -> None:
        s = self.begin()
        before = s.pids("app", "Outer")
        s.rest("PUT", self.config("first", num_replicas=4))
        wait_until("4 replicas", lambda: len(s.pids("app", "Outer")) == 4)
        self.assertLess(before, s.pids("app", "Outer"))
        s.rest("PUT", self.config("first", num_replicas=1))
        wait_until("1 replica", lambda: len(s.pids("app", "Outer")) == 1)
        self.assertEqual(s.call().status, 200)
        self.assertNoZombies(s)

    def test_put_moves_the_route(self) -> None:
        s = self.begin()
        pids = s.pids("app", "Outer")
        s.rest("PUT", self.config("first", prefix="/moved"))
        wait_until("the new route", lambda: s.call("/moved").status == 200)
        self.assertEqual(s.call("/").status, 404)
        self.assertEqual(s.pids("app", "Outer"), pids)

    def test_put_refuses_what_is_invalid(self) -> None:
        s = self.begin()
        for body in (b"{not json", b"[]", self.config("x", num_replicas="two"), {}):
            answer = s.rest("PUT", body)
            self.assertEqual(answer.status, 400, answer.text)
        self.assertIn("num_replicas", s.rest("PUT", self.config("x", num_replicas="two")).text)
        self.assertEqual(s.call().json()["word"], "first")

    def test_delete(self) -> None:
        s = self.begin()
        self.assertEqual(s.rest("DELETE").status, 200)
        wait_until("nothing runs", lambda: not s.details()["applications"])
        self.assertEqual(s.call("/").status, 404)
        self.assertEqual(s.call("/-/healthz").status, 200)
        self.assertEqual(s.rest("PUT", self.config("again")).status, 200)
        s.wait_apps()
        self.assertEqual(s.call().json()["word"], "again")

    def test_other_paths(self) -> None:
        s = self.begin()
        self.assertEqual(call(s.dashboard, "/api/nothing").status, 404)
        self.assertEqual(call(s.dashboard, "/api/serve/applications/", "POST", b"").status, 405)


class Metrics(ServeTest):
    def test_counts(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4")
        for _ in range(7):
            self.assertEqual(s.call("/").status, 200)
        for _ in range(2):
            self.assertEqual(s.call("/?fail=1").status, 500)
        s.call("/-/routes")
        answer = call(s.dashboard, "/metrics")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        self.assertEqual(self.total(answer.text, "ray_serve_num_http_requests_total",
                                    application="app", status_code="200"), 7)
        self.assertEqual(self.total(answer.text, "ray_serve_num_http_error_requests_total",
                                    application="app", error_code="500"), 2)
        self.assertEqual(self.total(answer.text, "ray_serve_http_request_latency_ms_count",
                                    application="app"), 9)
        self.assertEqual(self.total(answer.text, "ray_serve_deployment_replica_healthy",
                                    application="app"), 3)
        self.assertEqual(self.total(answer.text, "ray_serve_deployment_queued_queries"), 0)
        self.assertGreater(self.total(answer.text, "process_resident_memory_bytes"), 0)
        self.well_formed(answer.text)

    def total(self, text: str, name: str, **labels: str) -> float:
        total = 0.0
        for m in re.finditer(r"(?m)^%s(?:\{(.*)\})? (\S+)$" % name, text):
            found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[1] or ""))
            if all(found.get(k) == v for k, v in labels.items()):
                total += float(m[2])
        return total

    def well_formed(self, text: str) -> None:
        typed = set(re.findall(r"(?m)^# TYPE (\S+) ", text))
        for line in text.splitlines():
            if line.startswith("#") or not line:
                continue
            self.assertRegex(line, r"^[a-zA-Z_:][\w:]*(\{[^{}]*\})? [-+0-9.eEinfNa]+$")
            name = re.match(r"[\w:]+", line)[0]
            self.assertTrue(name in typed or re.sub(r"_(bucket|sum|count|total)$", "", name)
                            in typed, name)

    def test_in_flight(self) -> None:
        s = self.serve_code("""\
            import asyncio
            from ray import serve

            @serve.deployment(max_ongoing_requests=2)
            class Sleeper:
                async def __call__(self, request):
                    await asyncio.sleep(float(request.query_params.get("s", 0)))
                    return "ok"

            app = Sleeper.bind()
            """)
        load = Load(s.port, "/?s=1.5", threads=5)

        def figures() -> tuple:
            text = call(s.dashboard, "/metrics").text
            return (self.total(text, "ray_serve_replica_processing_queries"),
                    self.total(text, "ray_serve_deployment_queued_queries"),
                    self.total(text, "ray_serve_num_ongoing_http_requests"))
        wait_until("2 run and 3 wait", lambda: figures() == (2, 3, 5))
        load.stop()
        wait_until("none is left", lambda: figures() == (0, 0, 0))


if __name__ == "__main__":
    main()
