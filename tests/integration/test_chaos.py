#!/usr/bin/env python3
"""Everything at once: replicas that are killed, stopped, slowed, scaled and reloaded under clients
of every sort, while each request is accounted for: one answer, the right one.

RSERVE_CHAOS_S: for how many seconds (12). RSERVE_CHAOS_SEED: which dice (printed when it fails).
"""

import collections
import http.client
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
import time
from typing import Any, Callable, Counter, Dict, List, NamedTuple, Optional

from harness import SLOW, Server, ServeTest, call, descendants, main, wait_until
from raw_client import Cut, Held, RawClient, Reply, held

DURATION = float(os.environ.get("RSERVE_CHAOS_S", "12"))
SEED = int(os.environ.get("RSERVE_CHAOS_SEED", str(random.randrange(1 << 30))))
REPLICA = os.environ.get("RSERVE_LOAD_REPLICA", "")

APP = """\
    import asyncio, os, threading, time
    from ray import serve
    from starlette.responses import PlainTextResponse, StreamingResponse

    FOLDER = os.path.dirname(__file__)
    LOG = os.open(os.path.join(FOLDER, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what, value):
        os.write(LOG, b"%s %s\\n" % (what.encode(), str(value).encode()))

    def slow():
        return os.path.exists(os.path.join(FOLDER, "slow"))

    def answer(name, n):
        return ((name + "|") * (n // (len(name) + 1) + 1))[:n]

    class Counted:
        # never more at once than `limit` of user_config
        limit = now = 0
        lock = threading.Lock()

        def reconfigure(self, config):
            self.limit = config.get("limit", 0)

        def __enter__(self):
            with self.lock:
                self.now += 1
                if self.limit and self.now > self.limit:
                    note("over", "%s has %d" % (type(self).__name__, self.now))

        def __exit__(self, *exc):
            with self.lock:
                self.now -= 1

    @serve.deployment(num_replicas=2, max_ongoing_requests=4, user_config={"limit": 4})
    class Leaf(Counted):
        def __call__(self, name, n):
            with self:
                if slow():
                    time.sleep(0.05)
                return answer(name, n)

    @serve.deployment(num_replicas=2, max_ongoing_requests=6, user_config={"limit": 6})
    class Mid(Counted):
        def __init__(self, leaf):
            self.leaf = leaf

        async def __call__(self, name, n):
            with self:
                return await self.leaf.remote(name, n)

        async def stream(self, name, chunks, s):
            with self:
                for i in range(chunks):
                    yield "%s:%d\\n" % (name, i)
                    await asyncio.sleep(s)

    @serve.deployment(num_replicas=2, max_ongoing_requests=8, user_config={"limit": 8})
    class Front(Counted):
        def __init__(self, mid):
            self.mid = mid

        async def __call__(self, request):
            q = request.query_params
            name, n = q["id"], int(q.get("n", 0))
            chunks, ms = int(q.get("chunks", 0)), int(q.get("ms", 0))
            if chunks:  # it is passed on after this returned
                note("begin", name)
                stream = self.mid.options(stream=True).stream
                items = stream.remote(name, chunks, ms / 1000 / chunks)
                return StreamingResponse(items, media_type="text/plain")
            with self:
                note("begin", name)
                if request.method == "POST":
                    return PlainTextResponse(await request.body())
                await asyncio.sleep(ms / 1000)
                return PlainTextResponse(await self.mid.remote(name, n))

    app = Front.bind(Mid.bind(Leaf.bind()))
    """

SERVER = """\
    import http.server, os, socketserver, sys, time, urllib.parse

    LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            q = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            if "id" not in q:
                return self.reply(b"ready")
            name, n = q["id"], int(q.get("n", 0))
            os.write(LOG, b"begin %s\\n" % name.encode())
            time.sleep(int(q.get("ms", 0)) / 1000)
            if "chunks" not in q:
                return self.reply(((name + "|") * (n // (len(name) + 1) + 1))[:n].encode())
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for i in range(int(q["chunks"])):
                line = b"%s:%d\\n" % (name.encode(), i)
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(line), line))
            self.wfile.write(b"0\\r\\n\\r\\n")

        def do_POST(self):
            q = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            os.write(LOG, b"begin %s\\n" % q["id"].encode())
            if "chunked" in self.headers.get("transfer-encoding", ""):
                body = b""
                while True:
                    size = int(self.rfile.readline(), 16)
                    body += self.rfile.read(size + 2)[:size]
                    if not size:
                        break
            else:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.reply(body)

        def reply(self, body):
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request, client_address):
            pass

    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """


def pieces(name: str, n: int) -> bytes:
    return ((name + "|") * (n // (len(name) + 1) + 1))[:n].encode()


class Request(NamedTuple):
    name: str
    data: bytes  # as it is sent
    wanted: bytes
    safe: bool
    streams: bool


numbers = itertools.count(1)


def make(dice: random.Random, app: str, biggest: int = 300_000) -> Request:
    name = "%s-%d-%08x" % (app, next(numbers), dice.getrandbits(32))
    n = dice.choice([0, 20, 20, 1000, 1000, 10_000, 70_000, 300_000])
    ms = dice.choice([0, 0, 0, 5, 20])
    kind = dice.choice(["GET", "GET", "POST", "STREAM", "CHUNKED"])
    target = "/%s/x?id=%s&ms=%d&n=%d" % (app, name, ms, min(n, biggest))
    wanted = pieces(name, min(n, biggest))
    if kind == "GET":
        data = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % target.encode()
    elif kind == "STREAM":
        target += "&chunks=7"
        data = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % target.encode()
        wanted = b"".join(b"%s:%d\n" % (name.encode(), i) for i in range(7))
    elif kind == "POST":
        data = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (
            target.encode(), len(wanted), wanted)
    else:
        half = len(wanted) // 2
        data = b"POST %s HTTP/1.1\r\nHost: h\r\n" % target.encode()
        data += b"Transfer-Encoding: chunked\r\n\r\n"
        for part in (wanted[:half], wanted[half:]):
            data += b"%x\r\n%s\r\n" % (len(part), part) if part else b""
        data += b"0\r\n\r\n"
    return Request(name, data, wanted, kind in ("GET", "STREAM"), kind == "STREAM")


#: What a client may be told after a replica was killed over its request.
EXCUSES = {
    500: r"(?i)died|killed|unavailable|lost|^Internal Server Error$",
    502: r"(?i)died|killed|closed|broke|reset|ended|upstream",
    503: r"(?i)unavailable|no replica|drain",
}


class Checker:
    """Every request is told here, and its one end."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wrong: List[str] = []
        self.ends: Counter[str] = collections.Counter()
        self.kills: List[float] = []
        self.executed: Dict[str, bool] = {}  # name -> was it answered with 200, for those not safe
        self.going = True

    def fail(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text[:1000])

    def count(self, what: str) -> None:
        with self.lock:
            self.ends[what] += 1

    def excused(self, since: float) -> bool:
        """Was a replica killed since, or so shortly before that it may not have been noticed?"""
        with self.lock:
            return any(at >= since - 2 * SLOW for at in self.kills)

    def answered(self, r: Request, reply: Reply, since: float) -> None:
        text = reply.body.decode("latin-1")
        if reply.status == 200:
            self.count("200")
            if reply.body != r.wanted:
                self.fail("%s: a wrong body of %d instead of %d bytes: %r instead of %r" % (
                    r.name, len(reply.body), len(r.wanted), reply.body[:80], r.wanted[:80]))
        elif not re.search(EXCUSES.get(reply.status, "^(?!)"), text):
            self.fail("%s: %d %s" % (r.name, reply.status, text))
        elif not self.excused(since):
            self.fail("%s: %d although nobody was killed: %s" % (r.name, reply.status, text))
        else:
            self.count(str(reply.status))
        if not r.safe:
            with self.lock:
                self.executed[r.name] = reply.status == 200

    def cut(self, r: Request, cut: Cut, since: float) -> None:
        """Only an answer that had begun may break off, and what came of it is right."""
        if not cut.begun or not self.excused(since):
            self.fail("%s: %s, %s" % (r.name, cut,
                                      "a kill" if self.excused(since) else "without a kill"))
        elif not r.wanted.startswith(cut.body):
            self.fail("%s: a wrong part %r" % (r.name, cut.body[:80]))
        else:
            self.count("cut")
        if not r.safe:
            with self.lock:
                self.executed[r.name] = False


class Clients:
    """One thread each. A client that cannot do what it should tells the checker."""

    def __init__(self, checker: Checker, port: int, apps: List[str]) -> None:
        self.checker, self.port, self.apps = checker, port, apps
        kinds: List[Callable[[random.Random], None]] = [
            self.keep_alive, self.keep_alive, self.keep_alive, self.pipelining, self.pipelining,
            self.slow_sender, self.slow_reader, self.vanishing, self.vanishing, self.garbage]
        self.threads = [threading.Thread(target=self.run, args=(k, SEED + i), daemon=True)
                        for i, k in enumerate(kinds)]
        for t in self.threads:
            t.start()

    def run(self, kind: Callable[[random.Random], None], seed: int) -> None:
        dice = random.Random(seed)
        while self.checker.going:
            try:
                kind(dice)
            except TimeoutError as e:
                self.checker.fail("%s: no answer: %s" % (kind.__name__, e))
            except Exception as e:  # pylint: disable=broad-except
                self.checker.fail("%s: %s: %s" % (kind.__name__, type(e).__name__, e))
                time.sleep(0.2)

    def stop(self) -> None:
        self.checker.going = False
        for t in self.threads:
            t.join(120 * SLOW)
            if t.is_alive():
                self.checker.fail("a client is still at it")

    def ask(self, c: RawClient, requests: List[Request], send: Optional[Callable[[], None]] = None
            ) -> bool:
        """False: the connection is at its end."""
        since = time.monotonic()
        sender = threading.Thread(target=send or (lambda: c.send(b"".join(
            r.data for r in requests))), daemon=True)
        sender.start()  # it may have to wait until we read
        try:
            for i, r in enumerate(requests):
                try:
                    reply = c.reply()
                except Cut as e:
                    self.checker.cut(r, e, since)
                    for _ in requests[i + 1:]:
                        self.checker.count("not answered on a connection that was cut")
                    return False
                self.checker.answered(r, reply, since)
                if reply.close:
                    for _ in requests[i + 1:]:
                        self.checker.count("not answered on a connection that was closed")
                    return False
        finally:
            sender.join(60 * SLOW)
        if c.data:
            self.checker.fail("%s: bytes of nobody: %r" % (requests[-1].name, c.data[:80]))
        return True

    def make(self, dice: random.Random, **kwargs: Any) -> Request:
        return make(dice, dice.choice(self.apps), **kwargs)

    def keep_alive(self, dice: random.Random) -> None:
        c = RawClient(self.port)
        for _ in range(dice.randrange(1, 40)):
            if not self.checker.going or not self.ask(c, [self.make(dice)]):
                break
        c.close()

    def pipelining(self, dice: random.Random) -> None:
        c = RawClient(self.port)
        for _ in range(dice.randrange(1, 5)):
            if not self.checker.going or not self.ask(
                    c, [self.make(dice) for _ in range(dice.randrange(2, 7))]):
                break
        c.close()

    def slow_sender(self, dice: random.Random) -> None:
        c = RawClient(self.port)
        r = self.make(dice, biggest=20)

        def dribble() -> None:
            for i in range(len(r.data)):
                c.send(r.data[i:i + 1])
                time.sleep(0.001)
        self.ask(c, [r], dribble)
        c.close()

    def slow_reader(self, dice: random.Random) -> None:
        c = RawClient(self.port, receive_buffer=4096, most=16384)
        c.pause = lambda: time.sleep(0.002)
        self.ask(c, [self.make(dice)])
        c.close()

    def vanishing(self, dice: random.Random) -> None:
        """Gone within the request, while it waits, or within the answer."""
        c = RawClient(self.port)
        r = self.make(dice)
        how = dice.randrange(3)
        c.send(r.data[:dice.randrange(len(r.data))] if how == 0 else r.data)
        if how == 2:
            try:
                c.sock.recv(dice.choice([1, 100, 5000]))
            except ConnectionResetError:
                pass
        else:
            time.sleep(dice.choice([0, 0, 0.002, 0.02]))
        c.close(reset=dice.random() < 0.5)
        self.checker.count("vanished")

    def garbage(self, dice: random.Random) -> None:
        c = RawClient(self.port)
        good = make(dice, "c", biggest=20).data  # with a query that is none it goes on
        at = dice.randrange(min(len(good), 60))
        c.send(dice.choice([
            bytes(dice.getrandbits(8) for _ in range(300)) + b"\r\n\r\n",
            good[:at] + bytes([dice.getrandbits(8)]) + good[at + 1:],
            b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            b"\0" * 20000, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        ]))
        c.sock.settimeout(0.05)  # it may wait for more, rightly
        try:
            reply = c.reply()
            if 500 <= reply.status != 505 and not self.checker.excused(time.monotonic()):
                self.checker.fail("garbage was answered with %d: %r" % (reply.status, reply.body))
        except (Cut, OSError, ValueError):
            pass
        c.close(reset=dice.random() < 0.5)
        self.checker.count("garbage")
        time.sleep(0.01)


class Chaos(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        if not REPLICA:
            self.skipTest("the replica for load was not built")
        self.write("log", "")

    def config(self, **more: int) -> Dict[str, Any]:
        """`more`: num_replicas and max_ongoing_requests of Mid, and limit, what it checks."""
        mid = dict({"num_replicas": 2, "max_ongoing_requests": 6, "limit": 6}, **more)
        log = os.path.join(self.folder, "log")
        small = {"ray_actor_options": {"num_cpus": 0.1}}
        return {"applications": [
            {"name": "py", "route_prefix": "/py", "import_path": "served:app",
             "rserve": {"app_dir": self.folder}, "deployments": [
                 dict(small, name="Front"), dict(small, name="Leaf"),
                 dict(small, name="Mid", num_replicas=mid["num_replicas"],
                      max_ongoing_requests=mid["max_ongoing_requests"],
                      user_config={"limit": mid["limit"]})]},
            {"name": "c", "route_prefix": "/c", "deployments": [
                dict(small, name="C", num_replicas=3, max_ongoing_requests=4,
                     user_config={"limit": 4}, rserve={
                         "kind": "exec", "command": [REPLICA, log, "8"]})]},
            {"name": "h", "route_prefix": "/h", "deployments": [
                dict(small, name="H", num_replicas=2, max_ongoing_requests=8, rserve={
                    "kind": "http", "ready": {"path": "/"}, "command": [
                        sys.executable, os.path.join(self.folder, "server.py"), "{port}", log]})]},
        ]}

    def deploy(self, s: Server, **more: int) -> None:
        answer = s.rest("PUT", self.config(**more))
        self.assertEqual(answer.status, 200, answer.text)

    def settled(self, s: Server, replicas: int = 11) -> None:
        """As in the beginning: so many replicas, and no others."""
        def look() -> bool:
            apps = s.details()["applications"]
            found = [r["state"] for a in apps.values() for d in a["deployments"].values()
                     for r in d["replicas"]]
            return (len(apps) == 3 and all(a["status"] == "RUNNING" for a in apps.values())
                    and found == ["RUNNING"] * replicas)
        wait_until("all is as it was", look, 60)

    def figures(self, s: Server) -> Dict[str, float]:
        """Gauges of what is under way or waits, as far as they are not zero."""
        found = {}
        for line in call(s.dashboard, "/metrics").text.splitlines():
            name = line.split("{")[0].split(" ")[0]
            if line.startswith("#") or re.search(r"_(total|bucket|sum|count)$", name):
                continue
            if re.search(r"ongoing|queued|processing_queries|in_flight", name):
                found[line.rsplit(" ", 1)[0]] = float(line.rsplit(" ", 1)[1])
        self.assertTrue(found)
        return {k: v for k, v in found.items() if v}

    def idle(self, s: Server) -> None:
        try:
            wait_until("nothing is under way", lambda: not self.figures(s), 30)
        except AssertionError:
            self.fail("still under way: %s" % self.figures(s))
        for name, app in s.details()["applications"].items():
            for deployment, d in app["deployments"].items():
                shown = json.dumps(d.get("rserve", {}))
                for key in ("queued", "ongoing", "in_flight"):
                    self.assertNotRegex(shown, r'"[a-z_]*%s[a-z_]*": [1-9]' % key,
                                        (name, deployment))

    def replica_pids(self, s: Server) -> List[int]:
        return [r["pid"] for a in s.details()["applications"].values()
                for d in a["deployments"].values() for r in d["replicas"]
                if r["state"] == "RUNNING" and r["pid"]]

    def torment(self, s: Server, checker: Checker, dice: random.Random) -> Counter[str]:
        done: Counter[str] = collections.Counter()
        slow = os.path.join(self.folder, "slow")
        until = time.monotonic() + DURATION
        while time.monotonic() < until:
            self.assertIsNone(s.process.poll(), "rserve ended; seed %d" % SEED)
            what = dice.choice(["kill", "kill", "stop", "stop", "slow", "scale", "limits", "roll"])
            pids = self.replica_pids(s)
            if what == "kill" and pids:
                with checker.lock:
                    checker.kills.append(time.monotonic())
                try:
                    os.kill(dice.choice(pids), signal.SIGKILL)
                except ProcessLookupError:
                    pass
                with checker.lock:
                    checker.kills.append(time.monotonic())
            elif what == "stop" and pids:
                pid = dice.choice(pids)
                try:
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(dice.choice([0.05, 0.3]))
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
            elif what == "slow":
                self.write("slow", "")
                time.sleep(0.3)
                os.unlink(slow)
            elif what == "scale":
                self.deploy(s, num_replicas=dice.choice([1, 3]))
            elif what == "limits":  # lower than what is checked, then again as it was
                self.deploy(s, max_ongoing_requests=dice.choice([2, 3, 5]))
            elif what == "roll":
                self.deploy(s)
            done[what] += 1
            time.sleep(dice.choice([0.05, 0.2, 0.4]))
        return done

    def test_everything_at_once(self) -> None:
        self.write("served.py", APP)
        self.write("server.py", SERVER)
        path = self.write("app.yaml", json.dumps(self.config()))
        s = self.serve(path, "--num-cpus", "4")
        self.settled(s)
        base = self.warm_up(s)
        checker = Checker()
        clients = Clients(checker, s.port, ["py", "c", "h"])
        try:
            done = self.torment(s, checker, random.Random(SEED))
        except (OSError, http.client.HTTPException) as e:
            self.fail("rserve: %s, %r; seed %d" % (s.process.wait(10), e, SEED))
        finally:
            clients.stop()
        told = "seed %d; %s; done: %s" % (SEED, dict(checker.ends), dict(done))
        if os.environ.get("RSERVE_CHAOS_S"):
            print(told)
        self.assertEqual(checker.wrong[:10], [], told)
        self.assertGreater(checker.ends["200"], 50, told)
        self.once(checker, told)
        self.deploy(s)
        self.settled(s)
        self.idle(s)
        self.assertNoZombies(s)
        self.nothing_kept(s, base, told)

    def warm_up(self, s: Server) -> Held:
        """A little of everything, so that what is made once has been made."""
        checker = Checker()
        clients = Clients(checker, s.port, ["py", "c", "h"])
        wait_until("some answers", lambda: checker.ends["200"] > 100 or checker.wrong, 60)
        clients.stop()
        self.assertEqual(checker.wrong[:10], [])
        self.idle(s)
        return self.quiet(s)

    def quiet(self, s: Server) -> Held:
        """What it holds once connections that clients left were noticed."""
        last = held(s.pid)

        def still() -> bool:
            nonlocal last
            before, last = last, held(s.pid)
            time.sleep(0.2)
            return before.files == last.files
        wait_until("its descriptors are those of nobody's connections", still)
        return last

    def nothing_kept(self, s: Server, base: Held, told: str) -> None:
        try:
            wait_until("descriptors are as before", lambda: held(s.pid).files <= base.files, 30)
        except AssertionError:
            kept = sorted(os.readlink("/proc/%d/fd/%s" % (s.pid, n))
                          for n in os.listdir("/proc/%d/fd" % s.pid))
            self.fail("%d descriptors before, now %s; %s" % (base.files, kept, told))
        now = held(s.pid)
        self.assertLessEqual(now.memfds, base.memfds, told)
        self.assertLessEqual(now.threads, base.threads, told)
        if SLOW == 1:  # sanitizers keep what was freed
            self.assertLess(now.rss_kb - base.rss_kb, 40 << 10, told)

    def once(self, checker: Checker, told: str) -> None:
        """What is not safe was begun once if it was answered, and never twice."""
        begun: Counter[str] = collections.Counter()
        with open(os.path.join(self.folder, "log"), encoding="latin-1") as f:
            for line in f:
                what, value = line.rstrip("\n").split(" ", 1)
                self.assertNotEqual(what, "over", "more than allowed: %s; %s" % (value, told))
                begun[value] += 1
        for name, good in checker.executed.items():
            self.assertLessEqual(begun[name], 1, "%s was begun more than once; %s" % (name, told))
            if good:
                self.assertEqual(begun[name], 1, "%s was answered, not begun; %s" % (name, told))


if __name__ == "__main__":
    assert descendants
    main()
