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
            self.assertRegex(json.loads(answer.text)["error"][:200], "limit 1048576")
        for _ in range(12):
            self.assertEqual(call(s.port, "/?what=stats").text, "told")
        s.wait_output("what a replica tells is too long")
        # What the head is told of the replicas is up to date all the same.
        os.kill(min(pids), 9)
        wait_until("another replica takes its place",
                   lambda: len(s.pids("app", "Long") - {min(pids)}) == 3)
        self.assertNotIn("refused", s.output())
        self.assertEqual(s.stop(), 0)


if __name__ == "__main__":
    main()
