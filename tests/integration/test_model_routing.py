#!/usr/bin/env python3
"""Requests come where their model is loaded and where their session was, within the slots."""

import os
import signal
import threading
from typing import Dict, List

from harness import ServeTest, main, wait_until

CODE = '''
import asyncio, os
from ray import serve

@serve.deployment(num_replicas=3, max_ongoing_requests=4, ray_actor_options={"num_cpus": 0.1})
class Models:
    def __init__(self):
        self.loads, self.now, self.most = [], 0, 0

    @serve.multiplexed(max_num_models_per_replica=1)
    async def load(self, model_id):
        await asyncio.sleep(0.02)
        self.loads.append(model_id)
        return model_id

    async def __call__(self, request=None):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            model_id = serve.get_multiplexed_model_id()
            if model_id:
                assert await self.load(model_id) == model_id
            return [os.getpid(), self.loads, self.most]
        finally:
            self.now -= 1

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Front:
    def __init__(self, models):
        self.models = models

    async def __call__(self, request):
        q = request.query_params
        handle = self.models
        if "model" in q:
            handle = handle.options(multiplexed_model_id=q["model"])
        if "session" in q:
            handle = handle.options(session_id=q["session"])
        return await handle.remote()

app = Models.bind()
front = Front.bind(Models.bind())
'''


class ModelRouting(ServeTest):
    def begin(self, import_path: str = "served:app"):
        path = self.write_app(CODE)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        self.write("app.yaml", text.replace("served:app", import_path))
        return self.serve(path)

    def ask(self, s, model: str):
        answer = s.call("/", headers={"serve_multiplexed_model_id": model})
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()

    def test_models_stay_where_they_are(self) -> None:
        s = self.begin()
        homes: Dict[str, int] = {}
        for _ in range(5):
            for model in ("a", "b", "c"):
                pid, loads, _ = self.ask(s, model)
                self.assertEqual(homes.setdefault(model, pid), pid)
                self.assertEqual(loads, [model], "each replica loads one model once")
        self.assertEqual(len(set(homes.values())), 3, "the one with the fewest models was taken")
        # the replica of a model dies: another one loads it, and the others keep theirs
        os.kill(homes["a"], signal.SIGKILL)
        pid, _, _ = wait_until("another one answers", lambda: (
            lambda got: got if got[0] != homes["a"] else None)(self.ask(s, "a")))
        self.assertEqual(self.ask(s, "a")[0], pid)

    def test_load_does_not_move_them(self) -> None:
        s = self.begin()
        results: List[list] = []

        def work(model: str) -> None:
            for _ in range(20):
                results.append([model, *self.ask(s, model)])

        for model in ("a", "b", "c"):
            self.ask(s, model)
        threads = [threading.Thread(target=work, args=(m,)) for m in "abc" for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        self.assertEqual(len(results), 3 * 8 * 20)
        self.assertLessEqual(max(r[3] for r in results), 4, "max_ongoing_requests")
        loads = {pid: sorted(max((r[2] for r in results if r[1] == pid), key=len))
                 for pid in {r[1] for r in results}}
        self.assertEqual(sorted(loads.values()), [["a"], ["b"], ["c"]],
                         "8 requests at a time wait for the 4 slots of their replica")

    def test_sessions_and_options_of_handles(self) -> None:
        s = self.begin("served:front")
        for query in ("model", "session"):
            homes: Dict[str, int] = {}
            for _ in range(4):
                for name in "abcdefgh" if query == "session" else "abc":
                    answer = s.call("/?%s=%s" % (query, name))
                    self.assertEqual(answer.status, 200, answer.text)
                    self.assertEqual(homes.setdefault(name, answer.json()[0]), answer.json()[0])
            self.assertGreater(len(set(homes.values())), 1)

    def test_sessions_over_http(self) -> None:
        s = self.begin()

        def home(name: str) -> int:
            answer = s.call("/", headers={"x-session-id": name})
            self.assertEqual(answer.status, 200, answer.text)
            return answer.json()[0]
        homes = {name: home(name) for name in "abcdefghijkl"}
        self.assertEqual({name: home(name) for name in homes}, homes)
        victim = homes["a"]
        os.kill(victim, signal.SIGKILL)
        wait_until("three replicas again", lambda: len(s.pids("app", "Models") - {victim}) == 3)
        new = (s.pids("app", "Models") - set(homes.values())).pop()
        for name, pid in homes.items():
            if pid != victim:
                self.assertIn(home(name), {pid, new}, "moved between replicas that stayed")
            self.assertEqual(home(name), home(name))


if __name__ == "__main__":
    main()
