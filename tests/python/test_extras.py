"""serve.batch, serve.multiplexed, serve.metrics."""

from __future__ import annotations

import json
import unittest

from fakenode import FakeNode, Peer, w

HEAD = "import asyncio\nfrom ray import serve\nfrom ray.serve import metrics\n"


class Extras(unittest.TestCase):
    def serve(self, source: str, **config: object) -> Peer:
        self.node = FakeNode(HEAD + source)
        self.addCleanup(self.node.close)
        return self.node.serve(**{"max_ongoing_requests": 100, **config})

    def get(self, peer: Peer, path: str = "/", **kwargs: object) -> object:
        answer = peer.http(path, **kwargs)
        self.assertIsNone(answer.error, answer.message)
        return json.loads(answer.body)

    BATCH = """
@serve.deployment
class A:
    def __init__(self): self.sizes = []

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.2)
    async def double(self, values, factors=None):
        self.sizes.append(len(values))
        if -1 in values: raise ValueError("whole batch of %d" % len(values))
        if -2 in values: return values[1:]
        return [v * 2 for v in values]

    @serve.batch(max_batch_size=10, batch_wait_timeout_s=0.05, batch_size_fn=sum)
    async def by_sum(self, values):
        return [list(values)] * len(values)

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def count(self, limits):
        for i in range(max(limits)):
            yield [i if i < n else StopIteration for n in limits]

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=60, max_concurrent_batches=2)
    async def models(self, xs):
        from ray.serve.context import _get_serve_batch_request_context
        me = serve.get_multiplexed_model_id()
        return [[me, len(_get_serve_batch_request_context())]] * len(xs)

    async def safe(self, call):
        try: return await call
        except BaseException as e: return [type(e).__name__, str(e)]

    async def take(self, n): return [x async for x in self.count(n)]

    async def __call__(self, request):
        how = request.query_params["how"]
        if how == "sizes": return self.sizes
        if how == "many": return await asyncio.gather(*[self.double(i) for i in range(10)])
        if how == "keyword":
            return await asyncio.gather(self.double(values=1, factors=2), self.double(2, 3))
        async def all_of(f, *items):
            return await asyncio.gather(*[self.safe(f(i)) for i in items])
        if how == "fails": return await all_of(self.double, 1, -1)
        if how == "short": return await all_of(self.double, 1, -2)
        if how == "sum": return await all_of(self.by_sum, 6, 3, 5, 11)
        if how == "count": return await asyncio.gather(*[self.take(i) for i in (1, 3, 0)])
        if how == "cancel":
            tasks = [asyncio.create_task(self.double(i)) for i in range(3)]
            await asyncio.sleep(0.01)
            tasks[1].cancel()
            out = await asyncio.gather(*tasks, return_exceptions=True)
            return [o if isinstance(o, int) else type(o).__name__ for o in out]
        if how == "set":
            self.double.set_max_batch_size(2)
            return [self.double._get_max_batch_size(), self.double._is_batching_task_alive()]
        if how == "model": return await self.models(0)
        return None
app = A.bind()
"""

    def test_batches(self) -> None:
        peer = self.serve(self.BATCH)
        for how, value in (
            ("many", [i * 2 for i in range(10)]),
            ("sizes", [4, 4, 2]),
            ("keyword", [2, 4]),
            ("fails", [["ValueError", "whole batch of 2"]] * 2),
            ("count", [[0], [0, 1, 2], []]),
            ("cancel", [0, "CancelledError", 4]),
            ("set", [2, True]),
        ):
            with self.subTest(how=how):
                self.assertEqual(self.get(peer, query=f"how={how}"), value)
        short = self.get(peer, query="how=short")
        text = (
            "Batched function doesn't preserve batch size. "
            "The input list has length 2 but the returned list has length 1."
        )
        self.assertEqual(short, [["RayServeException", text]] * 2)
        got = self.get(peer, query="how=sum")
        assert isinstance(got, list)
        self.assertEqual(got[:3], [[6, 3], [6, 3], [5]])
        self.assertIn("greater than max_batch_size", got[3][1])

    def test_batches_are_split_by_model(self) -> None:
        peer = self.serve(self.BATCH)
        streams = [
            peer.open_http(query="how=model", headers=[("serve-multiplexed-model-id", m)])
            for m in "abba"
        ]
        got = [json.loads(peer.wait(s).body) for s in streams]
        self.assertEqual(got, [["a", 2], ["b", 2], ["b", 2], ["a", 2]])

    def test_batch_refuses(self) -> None:
        from ray import serve

        async def f(x: list) -> list:
            return x

        for kind, options in (
            (ValueError, {"max_batch_size": 0}),
            (TypeError, {"max_batch_size": "1"}),
            (ValueError, {"batch_wait_timeout_s": -1}),
            (TypeError, {"batch_wait_timeout_s": "1"}),
            (TypeError, {"max_concurrent_batches": 0}),
            (TypeError, {"batch_size_fn": 3}),
        ):
            with self.subTest(options=options), self.assertRaises(kind):
                serve.batch(**options)(f)
        with self.assertRaises(TypeError):
            serve.batch(lambda x: x)

    def test_multiplexed(self) -> None:
        peer = self.serve(
            """
log = []
class Model:
    def __init__(self, name): self.name = name
    def __del__(self):
        log.append("unload " + self.name)
        print("unload", self.name)

@serve.deployment
class A:
    @serve.multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id):
        await asyncio.sleep(0.01)
        if model_id == "bad": raise KeyError("no such model")
        log.append("load " + model_id)
        return Model(model_id)
    async def __call__(self, request):
        if request.url.path == "/log": return log
        model = await self.load(serve.get_multiplexed_model_id())
        return model.name
app = A.bind()
"""
        )

        def ask(model: str) -> bytes:
            return peer.http(headers=[("Serve_Multiplexed_Model_Id", model)]).body

        self.assertEqual([ask(m) for m in "aba"], [b"a", b"b", b"a"])
        self.assertEqual(ask("c"), b"c")
        self.assertEqual(peer.http(headers=[("serve_multiplexed_model_id", "bad")]).code, w.E_USER)
        log = ["load a", "load b", "unload b", "load c", "unload a"]
        self.assertEqual(self.get(peer, "/log"), log)
        streams = [peer.open_http(headers=[("serve_multiplexed_model_id", "d")]) for _ in range(5)]
        self.assertEqual([peer.wait(s).body for s in streams], [b"d"] * 5)
        self.assertEqual(self.get(peer, "/log"), [*log, "load d"])
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertEqual(peer.stdout().split("\n")[2:4], ["unload c", "unload d"])

    def test_multiplexed_refuses(self) -> None:
        from ray import serve

        with self.assertRaises(TypeError):
            serve.multiplexed(lambda model_id: 1)
        for value, kind in ((0, ValueError), ("1", TypeError)):
            with self.assertRaises(kind):
                serve.multiplexed(max_num_models_per_replica=value)

    def test_metrics(self) -> None:
        peer = self.serve(
            """
@serve.deployment
class A:
    def __init__(self):
        self.c = metrics.Counter("calls", "how many", tag_keys=("kind",))
        self.c.set_default_tags({"kind": "plain"})
        self.g = metrics.Gauge("level")
        self.h = metrics.Histogram("size", boundaries=[1, 10], tag_keys=("route",))
    def attempt(self, f):
        try: f(); return "accepted"
        except Exception as e: return [type(e).__name__, str(e)]
    def __call__(self, request):
        self.c.inc()
        self.c.inc(2, tags={"kind": "other"})
        self.g.set(7.5)
        for v in (1, 5, 50): self.h.observe(v)
        return [self.attempt(f) for f in (
            lambda: metrics.Counter("x", tag_keys=("replica",)),
            lambda: metrics.Counter("x", tag_keys=["a"]),
            lambda: self.c.inc(0),
            lambda: metrics.Gauge("a b"),
            lambda: metrics.Histogram("h", boundaries=[2, 1]),
        )]
app = A.bind()
"""
        )
        got = self.get(peer, root_path="/pre")
        self.assertEqual(
            got,
            [
                ["ValueError", "'replica' tag is reserved for Ray Serve metrics"],
                ["TypeError", "tag_keys should be a tuple type, got: <class 'list'>"],
                ["ValueError", "value must be >0, got 0"],
                ["ValueError", "Invalid metric name: a b. It must match [a-zA-Z_:][a-zA-Z0-9_:]*."],
                ["ValueError", "Invalid `boundaries`: [2, 1]. They must be > 0 and sorted."],
            ],
        )
        own = {"application": "default", "deployment": "A", "replica": "abcd0000"}
        stats = {m["name"]: m for m in peer.expect_json(w.STATS)["metrics"]}
        self.assertEqual(
            stats["calls"]["samples"],
            [
                {"labels": {**own, "kind": "plain"}, "value": 1.0},
                {"labels": {**own, "kind": "other"}, "value": 2.0},
            ],
        )
        self.assertEqual(stats["level"]["samples"], [{"labels": own, "value": 7.5}])
        self.assertEqual(stats["size"]["boundaries"], [1.0, 10.0])
        self.assertEqual(
            stats["size"]["samples"],
            [{"labels": {**own, "route": "/pre"}, "buckets": [1, 1, 1], "sum": 56.0}],
        )


if __name__ == "__main__":
    unittest.main()
