#!/usr/bin/env python3
"""Deployments that roll, shrink, stop and move under load lose no request."""

import http.client
import json
import os
import signal
import sys
import threading
from typing import Any, Dict, List

from harness import C_ECHO, Load, ServeTest, Server, free_port, main, wait_until
from open_loop import HTTP_SERVER, OpenLoop

WORKER = """\
    import asyncio, os
    from ray import serve

    @serve.deployment(max_ongoing_requests=5)
    class Worker:
        async def __call__(self, request):
            await asyncio.sleep(0.02)
            return request.query_params["n"]

        def reconfigure(self, config):
            pass

    @serve.deployment(max_ongoing_requests=20)
    class Front:
        def __init__(self, worker):
            self.worker = worker

        async def __call__(self, request):
            return await self.worker.work.remote(request.query_params["n"])

    @serve.deployment(max_ongoing_requests=5)
    class Back:
        async def work(self, n):
            await asyncio.sleep(0.01)
            return n

    app = Worker.bind()
    two = Front.bind(Back.bind())
    """

STREAM = """\
    import asyncio
    from ray import serve
    from starlette.responses import StreamingResponse

    async def pieces(n, pause):
        for i in range(n):
            yield "piece %d\\n" % i
            await asyncio.sleep(pause)

    @serve.deployment(graceful_shutdown_timeout_s=GRACE)
    class A:
        async def __call__(self, request):
            n = int(request.query_params["pieces"])
            return StreamingResponse(pieces(n, 0.1), media_type="text/plain")

    app = A.bind()
    """


class ChangeTest(ServeTest):
    def put(self, s: Server, deployments: List[Dict[str, Any]], **app: Any) -> None:
        answer = s.rest("PUT", {"applications": [dict(
            {"name": "app", "route_prefix": "/", "import_path": "served:app",
             "rserve": {"app_dir": self.folder}}, deployments=deployments, **app)]})
        self.assertEqual(answer.status, 200, answer.text)

    def settle(self, s: Server, name: str, n: int, load: OpenLoop) -> None:
        """Until there are so many replicas and no others, and then some requests more."""
        def settled() -> bool:
            replicas = s.app("app")["deployments"].get(name, {}).get("replicas", [])
            return [r["state"] for r in replicas] == ["RUNNING"] * n
        wait_until("%d replicas of %s" % (n, name), settled, 40)
        before = load.sent
        wait_until("more requests", lambda: load.sent >= before + 20)

    def assertNoneLost(self, load: OpenLoop) -> None:
        outcomes = load.stop()
        self.assertEqual([o for o in outcomes if o.status != 200][:5], [])
        self.assertEqual([o for o in outcomes if o.text != str(o.number)][:5], [])
        self.assertEqual(len({o.number for o in outcomes}), load.sent)


class Rolls(ChangeTest):
    """POSTs: nothing here may be run twice, so nothing may be interrupted."""

    def test_python(self) -> None:
        self.write_app(WORKER)
        s = self.start("--num-cpus", "6", os.path.join(self.folder, "app.yaml"))
        s.wait_apps()
        load = OpenLoop(s.port, 60, method="POST")
        one = {"name": "Worker", "ray_actor_options": {"num_cpus": 0.5}}
        for n in (4, 1, 3):
            self.put(s, [dict(one, num_replicas=n)])
            self.settle(s, "Worker", n, load)
        self.put(s, [dict(one, num_replicas=3, user_config={"x": 1})])  # in place
        self.settle(s, "Worker", 3, load)
        before = s.pids("app", "Worker")
        env = {"runtime_env": {"env_vars": {"NEW": "1"}}}  # a new version
        self.put(s, [dict(one, num_replicas=3, ray_actor_options=dict(env, num_cpus=0.5))])
        wait_until("all are new", lambda: not before & s.pids("app", "Worker"), 40)
        self.settle(s, "Worker", 3, load)
        self.assertNoneLost(load)

    def test_again_and_again(self) -> None:
        """No request is left with a replica that goes: it would hold the roll up for its grace."""
        s = self.serve_code("""\
            from ray import serve

            @serve.deployment
            class Worker:
                async def __call__(self, request):
                    return "at once"

            app = Worker.bind()
            """)
        load = Load(s.port, "/", threads=6)
        for version in range(8):
            self.put(s, [{"name": "Worker", "num_replicas": 2, "graceful_shutdown_timeout_s": 600,
                          "ray_actor_options": {"num_cpus": 0.1 + version / 100}}])
            wait_until("a roll", lambda: [r["state"] for r in s.app("app")["deployments"]["Worker"][
                "replicas"]] == ["RUNNING"] * 2)
            load.wait(200)
        self.assertEqual(set(load.stop()), {200})

    def test_calls_inside(self) -> None:
        self.write_app(WORKER)
        s = self.start("--num-cpus", "6", os.path.join(self.folder, "app.yaml"))
        s.wait_apps()
        two = {"import_path": "served:two"}
        self.put(s, [{"name": "Front"}, {"name": "Back", "num_replicas": 2}], **two)
        wait_until("it is the other one", lambda: s.app("app")["status"] == "RUNNING"
                   and "Back" in s.app("app")["deployments"])
        load = OpenLoop(s.port, 60, method="POST")
        for n, m in ((2, 1), (1, 3), (1, 1)):
            self.put(s, [{"name": "Front", "num_replicas": n}, {"name": "Back", "num_replicas": m}],
                     **two)
            self.settle(s, "Front", n, load)
            self.settle(s, "Back", m, load)
        self.assertNoneLost(load)

    def programs(self, kind: str, command: List[str], rate: float) -> None:
        def deployment(n: int, **options: Any) -> Dict[str, Any]:
            return {"name": "P", "num_replicas": n, "max_ongoing_requests": 5, **options,
                    "rserve": {"kind": kind, "command": command, "env": {"X": str(n)}}}

        def config(n: int) -> Dict[str, Any]:
            return {"applications": [{"name": "app", "route_prefix": "/",
                                      "deployments": [deployment(n)]}]}
        s = self.serve(self.write("app.yaml", json.dumps(config(1))), "--num-cpus", "6")
        load = OpenLoop(s.port, rate, method="POST")
        for n in (3, 1, 2):
            answer = s.rest("PUT", config(n))
            self.assertEqual(answer.status, 200, answer.text)
            self.settle(s, "P", n, load)
        if kind == "http":
            self.assertNoneLost(load)
        else:
            self.assertEqual([o for o in load.stop() if o.status != 200][:5], [])

    def test_http(self) -> None:
        self.write("server.py", HTTP_SERVER)
        self.programs("http", [sys.executable, os.path.join(self.folder, "server.py"), "{port}"],
                      30)

    def test_exec(self) -> None:
        if not C_ECHO:
            self.skipTest("the C stage was not built")
        self.programs("exec", [C_ECHO], 60)


class Ends(ChangeTest):
    def stream(self, s: Server, pieces: int, got: Dict[str, Any]) -> threading.Thread:
        def read() -> None:
            conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
            got["text"] = b""
            try:
                conn.request("GET", "/?pieces=%d" % pieces)
                answer = conn.getresponse()
                while True:
                    data = answer.read1(1000)
                    if not data:
                        break
                    got["text"] += data
                got["end"] = "clean"
            except (http.client.IncompleteRead, OSError) as e:
                got["end"] = repr(e)
            finally:
                conn.close()
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        wait_until("it streams", lambda: b"piece 1" in got.get("text", b""))
        return thread

    def test_a_stream_within_its_grace_period(self) -> None:
        s = self.serve_code(STREAM.replace("GRACE", "30"))
        got: Dict[str, Any] = {}
        thread = self.stream(s, 12, got)
        self.assertEqual(s.stop(), 0)
        thread.join(30)
        self.assertEqual(got["end"], "clean")
        self.assertEqual(got["text"].split(b"\n")[-2], b"piece 11")

    def test_a_stream_beyond_it(self) -> None:
        """It breaks off: no client takes it for the whole."""
        s = self.serve_code(STREAM.replace("GRACE", "0.5"))
        got: Dict[str, Any] = {}
        thread = self.stream(s, 1000, got)
        self.assertEqual(s.stop(), 0)
        thread.join(30)
        self.assertIn("IncompleteRead", got["end"])

    def test_a_stream_of_a_replica_that_is_scaled_down(self) -> None:
        s = self.serve_code(STREAM.replace("GRACE", "30"), deployments="""\
            - {name: A, num_replicas: 2}
            """)
        results: List[Dict[str, Any]] = [{} for _ in range(4)]
        threads = [self.stream(s, 15, got) for got in results]
        self.put(s, [{"name": "A", "num_replicas": 1}])
        for thread in threads:
            thread.join(60)
        self.assertEqual([got["end"] for got in results], ["clean"] * 4)

    SLOW = """\
        import asyncio
        from ray import serve

        @serve.deployment(graceful_shutdown_timeout_s=0.5, max_ongoing_requests=10)
        class A:
            async def __call__(self, request):
                await asyncio.sleep(float(request.query_params["s"]))
                return request.query_params["n"]

        app = A.bind()
        """

    def processing(self, s: Server) -> List[float]:
        """How many requests each replica has."""
        return [float(line.rsplit(" ", 1)[1]) for line in s.rest(path="/metrics").text.splitlines()
                if line.startswith("ray_serve_replica_processing_queries{")]

    def test_requests_that_outlast_the_grace_period(self) -> None:
        """The node stops: nobody is left to run what is safe, so it is not waited for."""
        s = self.serve_code(self.SLOW)
        loads = [OpenLoop(s.port, 100, path="/?s=100&", method=m, most=1) for m in ("GET", "POST")]
        wait_until("they are under way", lambda: self.processing(s) == [2])
        self.assertEqual(s.stop(), 0)
        for load in loads:
            (outcome,) = load.join()
            self.assertIn(outcome.status, (502, 503), outcome)

    def test_requests_that_outlast_a_replica(self) -> None:
        """Fewer replicas: what is safe goes on with those that stay."""
        s = self.serve_code(self.SLOW, deployments="- {name: A, num_replicas: 2}\n")
        loads = [OpenLoop(s.port, 100, path="/?s=2&", method="GET", most=1, first=n)
                 for n in range(4)]
        wait_until("they are under way", lambda: self.processing(s) == [2, 2])
        self.put(s, [{"name": "A", "num_replicas": 1}])
        for n, load in enumerate(loads):
            (outcome,) = load.join()
            self.assertEqual((outcome.status, outcome.text), (200, str(n)))

    def test_the_node_stops(self) -> None:
        """What it took it answers; what comes later is refused by the kernel, not lost."""
        s = self.serve_code(WORKER, "--num-cpus", "2")
        load = OpenLoop(s.port, 60, method="POST")
        wait_until("requests", lambda: load.sent > 30)
        self.assertEqual(s.stop(), 0)
        outcomes = load.stop()
        for o in outcomes:
            if o.status != 200:
                self.assertRegex(o.text, "ConnectionRefused|Connect call failed|ConnectionReset"
                                 "|0 bytes read", o)
        self.assertGreater(sum(o.status == 200 for o in outcomes), 20)


class Nodes(ChangeTest):
    def test_a_worker_dies(self) -> None:
        """What another node worked on is run again elsewhere; with its own death in between."""
        join = free_port()
        port, dashboard = free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "1", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard = port, dashboard
        head.wait_rest()
        workers = [self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "1",
                              "--host", "127.0.0.1", "--port", "0") for _ in range(2)]
        self.write_app(WORKER)
        self.put(head, [{"name": "Worker", "num_replicas": 3}])
        head.wait_apps("RUNNING")
        load = OpenLoop(head.port, 60)
        wait_until("requests", lambda: load.sent > 60)
        workers[0].send(signal.SIGKILL)
        workers[0].wait_exit()
        before = load.sent
        wait_until("more requests", lambda: load.sent > before + 100)
        self.assertNoneLost(load)


if __name__ == "__main__":
    main()
