#!/usr/bin/env python3
"""Time limits and priorities through a graph of Python deployments, one of them stopped."""

import os
import signal
import threading
import time
from typing import Any, List

from harness import Answer, Server, ServeTest, main, wait_until

GRAPH = """\
    import asyncio
    import rserve
    from ray import serve

    @serve.deployment(max_ongoing_requests=1)
    class Model:
        def __init__(self):
            self.seen = []

        async def work(self, name, seconds):
            self.seen.append(name)
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.seen.append(name + " cancelled")
                raise
            return name

        async def log(self):
            seen, self.seen = self.seen, []
            return seen

    @serve.deployment(max_ongoing_requests=100)
    class Middle:
        def __init__(self, model):
            self.model = model

        async def work(self, name, seconds):
            return await self.model.work.remote(name, seconds)

    @serve.deployment(max_ongoing_requests=100)
    class Front:
        def __init__(self, middle, model):
            self.middle, self.model = middle, model

        async def __call__(self, request):
            q = request.query_params
            if "log" in q:
                return await self.model.log.remote()
            if "limit" not in q:
                return await self.middle.work.remote(q["name"], float(q.get("s", 0)))
            try:
                with rserve.limits(timeout_s=float(q["limit"])):
                    return await self.middle.work.remote(q["name"], float(q["s"]))
            except TimeoutError as e:
                return ["TimeoutError", type(e).__name__, str(e)]

    model = Model.bind()
    app = Front.bind(Middle.bind(model), model)
    """


class Limits(ServeTest):
    def graph(self) -> Server:
        self.write("served.py", GRAPH)
        return self.serve(self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              import_path: served:app
              rserve: {max_priority: 9}
            """), "--num-cpus", "3")

    def in_background(self, s: Server, path: str, into: List[Answer], **headers: str) -> Any:
        t = threading.Thread(target=lambda: into.append(s.call(path, headers={
            k.replace("_", "-"): v for k, v in headers.items()})))
        t.start()
        self.addCleanup(t.join)
        return t

    def queued(self, s: Server, deployment: str) -> int:
        details = s.rest(path="/api/serve/applications/?extended=1").json()
        return details["applications"]["app"]["deployments"][deployment]["rserve"]["queued"]

    def dropped(self, s: Server, deployment: str, cause: str) -> int:
        details = s.rest(path="/api/serve/applications/?extended=1").json()
        return details["applications"]["app"]["deployments"][deployment]["rserve"]["dropped"][cause]

    def test_the_whole_graph_has_one_deadline(self) -> None:
        s = self.graph()
        self.assertEqual(s.call("/?name=quick").text, "quick")
        for header, value in (("x-request-timeout-ms", "400"), ("grpc-timeout", "400m")):
            answer = s.call("/?name=slow&s=60", headers={header: value, "x-request-id": "r"})
            self.assertEqual((answer.status, answer.text),
                             (408, "Request r timed out after 0.4s."))
        seen: List[str] = []

        def cancelled() -> bool:
            seen.extend(s.call("/?log=1").json())
            return seen.count("slow cancelled") == 2
        wait_until("it reaches the last one", cancelled)
        self.assertEqual(seen.count("slow"), 2)

    def test_what_waits_deep_inside_is_never_started(self) -> None:
        s = self.graph()
        first: List[Answer] = []
        self.in_background(s, "/?name=first&s=5", first)
        wait_until("the first one runs", lambda: self.busy(s))
        late: List[Answer] = []
        for i in range(3):
            self.in_background(s, "/?name=late%d" % i, late, x_request_timeout_ms="300")
        wait_until("they are told", lambda: len(late) == 3)
        self.assertEqual({a.status for a in late}, {408})
        wait_until("the first one is done", lambda: first)
        self.assertEqual(first[0].text, "first")
        self.assertEqual(s.call("/?log=1").json(), ["first"])
        wait_until("they are counted", lambda: self.dropped(s, "Model", "expired") == 3)

    def busy(self, s: Server) -> bool:
        details = s.rest(path="/api/serve/applications/?extended=1").json()
        return details["applications"]["app"]["deployments"]["Model"]["rserve"]["in_flight"] == 1

    def test_limits_of_a_call(self) -> None:
        s = self.graph()
        got = s.call("/?name=x&s=60&limit=0.3").json()
        self.assertEqual(got[:2], ["TimeoutError", "GetTimeoutError"])
        self.assertEqual(s.call("/?name=y&s=0&limit=30").text, "y")

    def test_the_urgent_go_first_at_every_hop(self) -> None:
        s = self.graph()
        answers: List[Answer] = []
        self.in_background(s, "/?name=first&s=5", answers)
        wait_until("the first one runs", lambda: self.busy(s))
        for i, priority in enumerate("0595"):
            self.in_background(s, "/?name=%s.%d" % (priority, i), answers,
                               x_request_priority=priority)
            wait_until("it waits in front of the model",
                       lambda n=i + 1: self.queued(s, "Model") == n)
        wait_until("all are done", lambda: len(answers) == 5, 30)
        self.assertEqual({a.status for a in answers}, {200})
        self.assertEqual(s.call("/?log=1").json(), ["first", "9.2", "5.1", "5.3", "0.0"])

    def test_a_stopped_replica_keeps_nobody(self) -> None:
        s = self.graph()
        pid, = s.pids("app", "Model")
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        began = time.monotonic()
        answers: List[Answer] = []
        threads = [self.in_background(s, "/?name=x%d" % i, answers, x_request_timeout_ms="500")
                   for i in range(10)]
        for t in threads:
            t.join()
        self.assertEqual([a.status for a in answers], [408] * 10)
        self.assertLess(time.monotonic() - began, 20, "not the time of a health check")
        wait_until("nothing waits", lambda: self.queued(s, "Model") == 0)
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(s.call("/?name=again").text, "again")


if __name__ == "__main__":
    main()
