#!/usr/bin/env python3
"""Routes that go from one application to another: a request finds one of the two, never nobody."""

import json
from typing import Any, Dict, List

from harness import Load, Server, ServeTest, main, wait_until

CODE = '''
import os
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
class A:
    async def __call__(self, request):
        return os.environ["WORD"]

app = A.bind()
'''


class RouteChanges(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("served.py", CODE)

    def config(self, **apps: str) -> Dict[str, Any]:
        """name="PREFIX WORD"; what answers says WORD."""
        return {"applications": [
            {"name": n, "route_prefix": text.split()[0], "import_path": "served:app",
             "runtime_env": {"env_vars": {"WORD": text.split()[1]}},
             "rserve": {"app_dir": self.folder}} for n, text in apps.items()]}

    def put(self, s: Server, **apps: str) -> None:
        answer = s.rest("PUT", self.config(**apps))
        self.assertEqual(answer.status, 200, answer.text)
        wait_until("it is so", lambda: {
            n: (a["status"], a["route_prefix"]) for n, a in s.details()["applications"].items()
        } == {n: ("RUNNING", text.split()[0]) for n, text in apps.items()}, 40)

    def ends(self, loads: List[Load], *words: str) -> None:
        for load, allowed in zip(loads, words):
            load.wait(20)
            self.assertEqual(set(load.stop()), {200}, load.results[-5:])
            self.assertLessEqual({text for _, text in load.results}, set(allowed.split()))

    def test_swap(self) -> None:
        s = self.serve(self.write("app.yaml", json.dumps(self.config(a="/1 a", b="/2 b"))))
        loads = [Load(s.port, "/1"), Load(s.port, "/2")]
        for _ in range(3):
            self.put(s, a="/2 a", b="/1 b")
            self.put(s, a="/1 a", b="/2 b")
        self.put(s, a="/2 a2", b="/1 b")  # one of the two with new code
        self.assertEqual([s.call("/1").text, s.call("/2").text], ["b", "a2"])
        self.ends(loads, "a b", "a b a2")

    def test_taken_over(self) -> None:
        """By one that is new, from one that is deleted, or that moves away."""
        s = self.serve(self.write("app.yaml", json.dumps(self.config(a="/1 a"))))
        load = Load(s.port, "/1")
        self.put(s, b="/1 b")
        self.put(s, b="/2 b", c="/1 c")
        self.assertEqual([s.call("/1").text, s.call("/2").text], ["c", "b"])
        self.ends([load], "a b c")


if __name__ == "__main__":
    main()
