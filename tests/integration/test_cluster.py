#!/usr/bin/env python3
"""One head and two workers, as processes of their own, joined over TCP on loopback."""

import os
import signal
import subprocess
import time

from harness import RSERVE, Load, ServeTest, Server, free_port, main, wait_until


# Larger than one piece of what travels between nodes; the head itself has no CPU.
PROGRAM = """
from ray import serve
BIG = bytes(4000000)

@serve.deployment(num_replicas=4, ray_actor_options={"num_cpus": 1})
class Big:
    def size(self):
        return len(BIG)

handle = serve.run(Big.bind(), route_prefix=None)
sizes = [handle.size.remote() for _ in range(8)]
print(sizes[0].result(), len([s.result() for s in sizes]))
"""


class Cluster(ServeTest):
    def head(self) -> Server:
        port, dashboard, join = free_port(), free_port(), free_port()
        s = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                       "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        s.port, s.dashboard, s.join = port, dashboard, join
        return s

    def worker(self, head: Server, *args: str) -> Server:
        s = self.spawn("worker", "--address", "127.0.0.1:%d" % head.join, "--num-cpus", "2",
                       "--host", "127.0.0.1", "--port", "0", *args)
        return s

    def deploy_rag(self, head: Server) -> None:
        folder = os.path.dirname(self.copy_app("rag"))
        answer = head.rest("PUT", {"applications": [{
            "name": "rag", "route_prefix": "/", "import_path": "rag:app",
            "rserve": {"app_dir": folder},
            "deployments": [
                {"name": n, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}
                for n in ("Normalizer", "Retriever", "Generator", "RagPipeline")]}]})
        self.assertEqual(answer.status, 200, answer.text)

    def nodes_of(self, head: Server) -> set:
        return {r["node_id"] for d in head.app("rag")["deployments"].values()
                for r in d["replicas"]}

    def test_program_deploys_on_workers(self) -> None:
        """What a program deploys by value is fetched by the nodes that run it."""
        head = self.head()
        head.wait_rest()
        self.worker(head)
        self.worker(head)
        wait_until("both have joined", lambda: len(head.rest("GET").json()["proxies"]) >= 1)
        program = os.path.join(self.folder, "program.py")
        with open(program, "w", encoding="utf-8") as f:
            f.write(PROGRAM)
        done = subprocess.run(
            [RSERVE, "python", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=90, env=dict(os.environ, RAY_DASHBOARD_ADDRESS="127.0.0.1:%d" % head.dashboard))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "4000000 8\n", done.stderr)

    def test_rag_over_two_workers(self) -> None:
        head = self.head()
        head.wait_rest()
        workers = [self.worker(head), self.worker(head)]
        self.deploy_rag(head)
        head.wait_apps("RUNNING")
        self.assertEqual(len(self.nodes_of(head)), 2, "4 CPUs of replicas need both workers")
        for _ in range(10):
            answer = head.call("/?question=why+do+cats+purr")
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(answer.json()["sources"][0]["title"], "cats")
        # one worker dies: what still has a replica goes on once the head has seen it
        workers[1].send(signal.SIGKILL)
        workers[1].wait_exit()
        wait_until("its replicas are gone", lambda: len(self.nodes_of(head)) == 1)
        wait_until("it answers", lambda: head.call("/?question=tides").status == 200)
        # and another takes its place
        self.worker(head)
        wait_until("all replicas run on two nodes again", lambda: len(self.nodes_of(head)) == 2)
        head.wait_apps("RUNNING")
        load = Load(head.port, "/?question=bread")
        load.wait(50)
        self.assertEqual(set(load.stop()), {200})

    def test_nodes_live_on_without_the_head(self) -> None:
        head = self.head()
        head.wait_rest()
        port = free_port()
        worker = self.worker(head)
        self.deploy_rag_small(head)
        head.wait_apps("RUNNING")
        self.assertEqual(head.call("/?question=tides").status, 200)
        self.assertNotEqual(port, 0)
        head.send(signal.SIGKILL)
        head.wait_exit()
        self.assertIsNone(worker.process.poll(), "the worker keeps what runs")

    def test_a_head_that_was_stopped_keeps_its_nodes(self) -> None:
        s = self.serve_code("""
            from ray import serve
            @serve.deployment
            def f(request):
                return "ok"
            app = f.bind()
        """)
        s.send(signal.SIGSTOP)
        time.sleep(11)  # nodes that are silent for 10 s are given up
        s.send(signal.SIGCONT)
        self.assertEqual(s.call("/").text, "ok")
        time.sleep(1)
        self.assertNotIn("silent", s.output())
        self.assertEqual(len(s.replicas("app", "f")), 1)

    def deploy_rag_small(self, head: Server) -> None:
        folder = os.path.dirname(self.copy_app("rag"))
        head.rest("PUT", {"applications": [{
            "name": "rag", "route_prefix": "/", "import_path": "rag:app",
            "rserve": {"app_dir": folder},
            "deployments": [{"name": n, "ray_actor_options": {"num_cpus": 0.2}}
                            for n in ("Normalizer", "Retriever", "Generator", "RagPipeline")]}]})

    def test_worker_without_a_head_says_so(self) -> None:
        address = "127.0.0.1:%d" % free_port()
        s = self.spawn("worker", "--address", address, "--num-cpus", "1", "--host", "127.0.0.1",
                       "--port", "0")
        s.wait_output(address)
        self.assertIn("refused", s.output())


if __name__ == "__main__":
    main()
