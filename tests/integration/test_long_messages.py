#!/usr/bin/env python3
"""Messages longer than one may be: who wrote them is told, and the node keeps its head."""

import json
import os

from harness import ServeTest, call, main, wait_until

CODE = '''
import asyncio, json
from ray import serve
from rserve import _node, _wire as w

@serve.deployment(num_replicas=3, ray_actor_options={"num_cpus": 0})
class Long:
    async def __call__(self, request):
        link = _node.current()
        what = request.query_params["what"]
        if what == "stats":
            stats = {"k%05d" % i: float(i) for i in range(40000)}
            link.send_json(w.STATS, {"autoscaling_stats": stats})
            return "told"
        room = "x" * (2 ** 20 - 45)
        kind, message = {
            "core": (w.CORE, {"op": "hold", "actor_id": room}),
            "ask": (w.ASK, {"op": "delete", "app": room}),
        }[what]
        return json.dumps(await asyncio.to_thread(link.question, kind, message))

app = Long.bind()
'''


class LongMessages(ServeTest):
    def test_of_replicas(self) -> None:
        s = self.serve_code(CODE)
        pids = s.pids("app", "Long")
        for what in ("core", "ask"):
            answer = call(s.port, "/?what=" + what)
            self.assertEqual(answer.status, 200, answer.text[:200])
            self.assertRegex(answer.text[:40], "no actor xxx|existed")
        for _ in range(12):
            self.assertEqual(call(s.port, "/?what=stats").text, "told")
        s.wait_output("what a replica tells is too long")
        # What the head is told of the replicas is up to date all the same.
        os.kill(min(pids), 9)
        wait_until("another replica takes its place",
                   lambda: len(s.pids("app", "Long") - {min(pids)}) == 3)
        self.assertNotIn("refused", s.output())
        self.assertEqual(s.stop(), 0)

    def test_of_the_head(self) -> None:
        """What a node should run, with large configurations for user code."""
        self.write("served.py", CODE + """
@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0})
class Conf:
    def reconfigure(self, conf):
        self.size = len(conf["text"])
    async def __call__(self, request):
        return str(self.size)

one, two, three = (Conf.options(name=n).bind() for n in ("one", "two", "three"))
""")
        config = {"applications": [
            {"name": n, "route_prefix": "/" + n, "import_path": "served:" + n,
             "rserve": {"app_dir": self.folder},
             "deployments": [{"name": n, "user_config": {"text": "x" * 700000}}]}
            for n in ("one", "two", "three")]}
        s = self.serve(self.write("app.yaml", json.dumps(config)))
        for app in ("one", "two", "three"):
            self.assertEqual(s.call("/" + app).text, "700000")
        pids = s.pids("two", "two")
        config["applications"][1]["deployments"][0]["user_config"] = {"text": "y" * 800000}
        answer = s.rest("PUT", config)
        self.assertEqual(answer.status, 200, answer.text)
        wait_until("it is told", lambda: s.call("/two").text == "800000")
        wait_until("they are the same processes", lambda: s.pids("two", "two") == pids)


if __name__ == "__main__":
    main()
