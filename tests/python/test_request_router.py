"""Request routers of users as their process calls them."""

import asyncio
import contextlib
import io
import types
import unittest
from typing import Any, Dict, List

import fakenode  # noqa: F401  (puts the library on the path)
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.experimental.round_robin_router import RoundRobinRouter
from ray.serve.request_router import (
    DeploymentHandleSource,
    FIFOMixin,
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)
from rserve._router import Routers


def graph(cls: Any) -> Any:
    return types.SimpleNamespace(
        nodes={
            "D": types.SimpleNamespace(
                deployment=types.SimpleNamespace(
                    _options={"request_router_config": {"request_router_class": cls}}
                )
            )
        }
    )


def replica(name: str, in_flight: int = 0, **more: Any) -> Dict[str, Any]:
    return {"replica_id": name, "node_id": "n1", "in_flight": in_flight,
            "max_ongoing_requests": 2, **more}


def question(cls: Any, replicas: List[Dict[str, Any]], **more: Any) -> Dict[str, Any]:
    request = {"request_id": "q", "internal_request_id": more.pop("number", 1),
               "session_id": "s", "multiplexed_model_id": more.pop("model", "")}
    return {"deployment": "D", "class": f"{cls.__module__}:{cls.__qualname__}",
            "kwargs": more.pop("kwargs", {}), "node_id": "n1", "request": request,
            "replicas": replicas, **more}


class Base(FIFOMixin, MultiplexMixin, LocalityMixin, RequestRouter):
    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any = None) -> Any:
        return [candidate_replicas]


class Choose(unittest.TestCase):
    def ask(self, routers: Routers, *messages: Dict[str, Any]) -> List[Any]:
        async def main() -> List[Any]:
            return [await routers.choose(m) for m in messages]

        self.errors = io.StringIO()
        with contextlib.redirect_stderr(self.errors):
            return asyncio.run(main())

    def test_what_it_sees(self) -> None:
        seen: List[Any] = []

        class Router(Base):
            def initialize_state(self, **kwargs: Any) -> None:
                seen.append(kwargs)

            async def choose_replicas(self, candidates: Any, pending: Any = None) -> Any:
                seen.append(pending)
                self.available = [r.replica_id.unique_id
                                  for r in self.select_available_replicas(candidates)]
                lengths = [await r.get_queue_len(deadline_s=1) for r in candidates]
                seen.append(lengths)
                return [[r] for r in sorted(candidates, key=lambda r: r.routing_stats["x"])]

        routers = Routers(graph(Router), "app")
        asked = question(Router, [replica("a", 2, routing_stats={"x": 2}),
                                  replica("b", 1, routing_stats={"x": 1})], kwargs={"k": 1})
        got = self.ask(routers, asked)[0]
        self.assertEqual(got, {"deployment": "D", "groups": [["b"], ["a"]], "tell": False})
        self.assertEqual(seen[0], {"k": 1})
        self.assertIsInstance(seen[1], PendingRequest)
        self.assertEqual(seen[1].metadata.session_id, "s")
        self.assertEqual((seen[1].args, seen[1].kwargs), ([], {}))
        self.assertEqual(seen[2], [2, 1])
        router = routers._made["D"][1].router
        self.assertEqual(router.available, ["b"])
        self.assertEqual(router.app_name, "app")
        self.assertEqual(router.num_pending_requests, 0)

    def test_the_same_request_asked_again(self) -> None:
        seen: List[Any] = []

        class Router(Base):
            async def choose_replicas(self, candidates: Any, pending: Any = None) -> Any:
                seen.append(pending)
                return [candidates]

        asked = question(Router, [replica("a")])
        self.ask(Routers(graph(Router), "app"), asked, asked,
                 question(Router, [replica("a")], number=2))
        self.assertIs(seen[0], seen[1])
        self.assertIsNot(seen[0], seen[2])

    def test_replicas_come_and_go(self) -> None:
        seen: List[Any] = []

        class Router(Base):
            def update_replicas(self, replicas: List[RunningReplica]) -> None:
                super().update_replicas(replicas)
                seen.append(sorted(r.unique_id for r in self.curr_replicas))

            def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
                super().on_replica_actor_died(replica_id)
                seen.append("-" + replica_id.unique_id)

        a, b, c = replica("a"), replica("b"), replica("c")
        self.ask(Routers(graph(Router), "app"), question(Router, [a, b]),
                 question(Router, [a, b]), question(Router, [b, c]), question(Router, [c]))
        self.assertEqual(seen, [["a", "b"], "-a", ["b", "c"], "-b"])

    def test_events(self) -> None:
        seen: List[Any] = []

        class Router(Base):
            def on_request_routed(self, pending: Any, replica_id: Any, result: Any) -> None:
                seen.append(("routed", pending.metadata.request_id, replica_id.unique_id))

            def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
                seen.append(("completed", internal_request_id, replica_id.unique_id))

        asked = question(Router, [replica("a")])
        got = self.ask(Routers(graph(Router), "app"), asked,
                       {**asked, "event": "routed", "replica_id": "a"},
                       {**asked, "event": "completed", "replica_id": "a"})
        self.assertEqual(got[0]["tell"], True)
        self.assertEqual(got[1:], [None, None])
        self.assertEqual(seen, [("routed", "q", "a"), ("completed", "1", "a")])

    def test_failures(self) -> None:
        class Raises(Base):
            async def choose_replicas(self, *args: Any) -> Any:
                raise KeyError("which")

        class Unready(Base):
            def initialize_state(self, **kwargs: Any) -> None:
                raise RuntimeError("not I")

        class Wrong(Base):
            async def choose_replicas(self, *args: Any) -> Any:
                return 7

        class Abstract(RequestRouter):
            pass

        for cls, text in ((Raises, "which"), (Unready, "not I"), (Wrong, "iterable"),
                          (Abstract, "choose_replicas")):
            with self.subTest(cls=cls):
                routers = Routers(graph(cls), "app")
                asked = question(cls, [replica("a")])
                for answer in self.ask(routers, asked, asked):
                    self.assertIn(text, answer["error"])
                    self.assertEqual(answer["deployment"], "D")
                self.assertEqual(self.errors.getvalue().count("Error:"), 1)  # told once
        lost = {**question(Base, []), "class": "nowhere:Router"}
        self.assertIn("nowhere", self.ask(Routers(graph(None), "app"), lost)[0]["error"])


class OfRay(unittest.TestCase):
    def groups(self, cls: Any, names: str, session: str = "", kwargs: Any = None,
               routers: Any = None) -> List[str]:
        asked = question(cls, [replica(n) for n in names], kwargs=kwargs or {})
        asked["request"].update(session_id=session, internal_request_id=f"r{session}")
        routers = routers or Routers(graph(cls), "app")
        answer = asyncio.run(routers.choose(asked))
        return ["".join(g) for g in answer["groups"]]

    def test_round_robin(self) -> None:
        routers = Routers(graph(RoundRobinRouter), "app")
        got = [self.groups(RoundRobinRouter, names, routers=routers)
               for names in ("abc", "cab", "abc", "abc", "ab", "")]
        self.assertEqual(["".join(g) for g in got], ["abc", "bca", "cab", "abc", "ba", ""])

    def test_sessions(self) -> None:
        def of(names: str, **kwargs: Any) -> Dict[str, List[str]]:
            routers = Routers(graph(ConsistentHashRouter), "app")
            return {str(s): self.groups(ConsistentHashRouter, names, str(s), kwargs, routers)
                    for s in range(200)}

        before, after = of("abcd"), of("abc")
        self.assertEqual(before, of("dcba"))
        self.assertEqual({len(g) for g in before.values()}, {3})
        for session, groups in before.items():
            stays = [g for g in groups if g != "d"]
            self.assertEqual(after[session][:len(stays)], stays)
        first = [g[0] for g in before.values()]
        self.assertTrue(all(first.count(n) > 15 for n in "abcd"), first)
        self.assertEqual({len(g) for g in of("abc", fallback_replicas=0).values()}, {1})
        for bad in ({"virtual_nodes": 0}, {"fallback_replicas": -1}, {"virtual_nodes": "x"}):
            asked = question(ConsistentHashRouter, [replica("a")], kwargs=bad)
            with contextlib.redirect_stderr(io.StringIO()):
                answer = asyncio.run(Routers(graph(ConsistentHashRouter), "app").choose(asked))
            self.assertIn("must be an integer", answer["error"])


class Ranks(unittest.TestCase):
    def router(self, **more: Any) -> Any:
        return Base(
            deployment_id=DeploymentID("D", "app"),
            handle_source=DeploymentHandleSource.PROXY,
            self_node_id="n1",
            **more,
        )

    def replicas(self, router: Any, *facts: Dict[str, Any]) -> Any:
        from rserve._router import Router

        holder = Router.__new__(Router)
        holder.router, holder.deployment, holder.requests = router, DeploymentID("D", "app"), {}
        holder.update(list(facts))
        return list(router.curr_replicas.values())

    def names(self, ranks: Any) -> List[List[str]]:
        return [[r.replica_id.unique_id for r in rank] for rank in ranks]

    def test_locality(self) -> None:
        router = self.router(prefer_local_node_routing=True)
        some = self.replicas(router, replica("a", node_id="n2"), replica("b"), replica("c"))
        self.assertEqual(self.names(router.rank_replicas_via_locality(some)),
                         [["b", "c"], [], ["a"]])

        async def tries() -> List[Any]:
            holder = types.SimpleNamespace(requests={})
            from rserve._router import Router

            pending = Router.pending(holder, {"internal_request_id": 1})  # type: ignore[arg-type]
            return [sorted(r.unique_id for r in router.apply_locality_routing(pending))
                    for _ in range(2)]

        self.assertEqual(asyncio.run(tries()), [["b", "c"], ["a", "b", "c"]])

    def test_models(self) -> None:
        router = self.router()
        some = self.replicas(router, replica("a", multiplexed_model_ids=["m", "n"]),
                             replica("b", multiplexed_model_ids=["n"]), replica("c"),
                             replica("d"))
        self.assertEqual(self.names(router.rank_replicas_via_multiplex(some, "m")),
                         [["a"], ["c", "d"], ["b"]])
        self.assertEqual(self.names(router.rank_replicas_via_multiplex(some, "x")),
                         [[], ["c", "d"], ["a", "b"]])


if __name__ == "__main__":
    unittest.main()
