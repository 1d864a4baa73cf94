"""The zygote: building, describing, refusing, forking."""

from __future__ import annotations

import json
import os
import signal
import unittest
from typing import Any, Dict

from fakenode import ROOT, FakeNode, w

HELLO = """
from ray import serve

@serve.deployment
class A:
    def __call__(self):
        return "hello"

app = A.bind()
"""


class Build(unittest.TestCase):
    def failed(
        self, source: str, import_path: str = "app:app", args: Any = None, **files: str
    ) -> Dict[str, Any]:
        with FakeNode(source, **files) as node:
            message = node.build(import_path, args)
            self.assertNotIn("deployments", message)
            self.assertEqual(message["app"], "default")
            self.assertNotIn("\n", message["error"])
            self.assertNotIn(f'File "{ROOT}', message["traceback"])
            self.assertNotIn("frozen importlib", message["traceback"])
            # The zygote survives: another BUILD is answered.
            (node.folder / "fine.py").write_text(HELLO)
            self.assertIn("deployments", node.build("fine:app"))
            return message

    def test_hello(self) -> None:
        with FakeNode(HELLO) as node:
            hello = node.start_zygote()
            self.assertEqual(hello["kind"], "zygote")
            self.assertEqual(hello["protocol"], 1)
            self.assertEqual(hello["pid"], node.process.pid if node.process else 0)
            self.assertRegex(hello["python"], r"^3\.\d+\.\d+$")

    def test_graph(self) -> None:
        source = """
        from ray import serve
        from ray.serve.config import AutoscalingConfig

        @serve.deployment(num_replicas=2, max_ongoing_requests=7, user_config={"a": [1]})
        class Leaf:
            def reconfigure(self, c): pass

        @serve.deployment
        def function(x): return x

        class Holder:
            def __init__(self, inside): self.inside = inside

        scaling = AutoscalingConfig(max_replicas=3)

        @serve.deployment(autoscaling_config=scaling, ray_actor_options={"num_cpus": 0.5})
        class Root:
            def __init__(self, *a, **k): pass

        leaf = Leaf.bind(1)
        inner = {"y": (Leaf.bind(2), leaf)}
        app = Root.bind(leaf, [function.bind()], x=inner, z=Holder(Leaf.bind(3)))
        """
        with FakeNode(source) as node:
            graph = node.build()
            self.assertEqual(graph["ingress"], "Root")
            self.assertEqual(graph["start"], "fork")
            nodes = {d["name"]: d for d in graph["deployments"]}
            self.assertEqual(list(nodes), ["Leaf", "function", "Leaf_1", "Leaf_2", "Root"])
            self.assertEqual(nodes["Root"]["calls"], ["Leaf", "function", "Leaf_1", "Leaf_2"])
            self.assertEqual(
                nodes["Leaf"]["options"],
                {"num_replicas": 2, "max_ongoing_requests": 7, "user_config": {"a": [1]}},
            )
            self.assertEqual(
                nodes["Root"]["options"],
                {"autoscaling_config": {"max_replicas": 3}, "ray_actor_options": {"num_cpus": 0.5}},
            )
            self.assertTrue(nodes["function"]["function"])
            self.assertFalse(nodes["Root"]["function"])
            self.assertEqual(nodes["Leaf"]["object"], "app.Leaf")
            self.assertEqual(len(graph["warnings"]), 2)
            self.assertIn("Leaf_1", graph["warnings"][0])

    def test_dotted_import_path(self) -> None:
        with FakeNode(HELLO) as node:
            self.assertIn("deployments", node.build("app.app"))

    def test_builder(self) -> None:
        source = HELLO + "def build(args):\n    return A.options(name=args['n']).bind()\n"
        with FakeNode(source) as node:
            graph = node.build("app:build", {"n": "Given"})
            self.assertEqual(graph["ingress"], "Given")

    def test_missing_module(self) -> None:
        message = self.failed("", "nothing:app")
        self.assertEqual((message["phase"], message["kind"]), ("import", "ModuleNotFoundError"))
        self.assertIn("no module named 'nothing' in /", message["error"])

    def test_missing_package(self) -> None:
        message = self.failed("import os\nimport not_installed.part\n")
        self.assertEqual(message["phase"], "import")
        self.assertIn("no module named 'not_installed'", message["error"])
        self.assertIn("app.py:2", message["error"])
        self.assertIn("pip install not_installed", message["error"])
        self.assertIn("import not_installed.part", message["traceback"])

    def test_part_of_ray_that_is_not_here(self) -> None:
        for line in ("import ray.rllib", "from ray.serve import no_such_name"):
            message = self.failed(line + "\n")
            self.assertEqual(message["phase"], "import")
            self.assertIn("app.py:1", message["error"])
            self.assertIn("not available in this version of rserve", message["error"])
            self.assertNotIn("pip install", message["error"])

    def test_missing_own_module(self) -> None:
        message = self.failed("from helper import thing\n", helper="import app2\n")
        self.assertIn("no module named 'app2'", message["error"])
        self.assertIn("helper.py:1", message["error"])

    def test_syntax_error(self) -> None:
        message = self.failed("def broken(:\n    pass\n")
        self.assertEqual(message["kind"], "SyntaxError")
        self.assertRegex(message["error"], r"app\.py:1:\d+: ")

    def test_raises(self) -> None:
        message = self.failed("def f():\n    return 1 / 0\nf()\n")
        self.assertEqual(message["kind"], "ZeroDivisionError")
        self.assertRegex(message["error"], r"^ZeroDivisionError: division by zero \(.*app\.py:2\)$")
        self.assertIn("line 3", message["traceback"])

    def test_exits(self) -> None:
        for source in ("import sys\nsys.exit(3)\n", "raise SystemExit('no')\n"):
            message = self.failed(source)
            self.assertEqual(message["kind"], "SystemExit")
            self.assertIn("while it was imported", message["error"])

    def test_keyboard_interrupt(self) -> None:
        self.assertEqual(self.failed("raise KeyboardInterrupt\n")["kind"], "KeyboardInterrupt")

    def test_attribute(self) -> None:
        message = self.failed(HELLO, "app:absent")
        self.assertEqual((message["phase"], message["kind"]), ("attribute", "AttributeError"))
        self.assertIn("has no attribute 'absent'", message["error"])
        self.assertIn("it has: serve, A, app", message["error"])

    def test_bad_import_path(self) -> None:
        for path in ("", "app", ":app", "app:", "a:b:c", ".app"):
            self.assertEqual(self.failed(HELLO, path)["kind"], "ValueError")

    def test_build_errors(self) -> None:
        source = (
            HELLO
            + """
def wrong(args): return 5
def two(a, b): return app
def breaks(args): raise LookupError("in the builder")
"""
        )
        for path, args, kind, text in (
            ("app:A", None, "TypeError", ".bind()"),
            ("app:app", {"x": 1}, "ValueError", "Arguments can only be passed"),
            ("app:wrong", None, "TypeError", "must return an `Application`"),
            ("app:two", None, "TypeError", "exactly one parameter"),
            ("app:breaks", None, "LookupError", "in the builder"),
            ("app:serve", None, "TypeError", "Expected a built Serve application"),
        ):
            with self.subTest(path=path):
                message = self.failed(source, path, args)
                self.assertEqual((message["phase"], message["kind"]), ("build", kind))
                self.assertIn(text, message["error"])

    def test_cycle(self) -> None:
        source = HELLO + "app._args = (app,)\n"
        self.assertIn("cycle", self.failed(source)["error"])

    def test_exception_whose_text_fails(self) -> None:
        message = self.failed(
            "class E(Exception):\n    def __str__(self): raise KeyError\nraise E()\n"
        )
        self.assertEqual(message["kind"], "E")


class Fork(unittest.TestCase):
    def test_replica_is_not_the_zygotes_child(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            peer = node.fork("A")
            with open(f"/proc/{peer.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            self.assertEqual(int(fields[1]), os.getpid())  # parent
            self.assertEqual(int(fields[2]), peer.pid)  # process group
            self.assertEqual(int(fields[3]), peer.pid)  # session

    def test_many_replicas(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            peers = [node.fork("A") for _ in range(5)]
            self.assertEqual(len({p.pid for p in peers}), 5)
            for peer in peers:
                self.assertEqual(peer.http().body, b"hello")

    def test_no_zombie_is_left_behind(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            node.fork("A")
            assert node.process is not None
            with open(f"/proc/{node.process.pid}/task/{node.process.pid}/children") as file:
                self.assertEqual(file.read().strip(), "")

    def test_output(self) -> None:
        source = """
        import os, sys
        from ray import serve
        print("at import")

        @serve.deployment
        class A:
            def __call__(self):
                print("to stdout")
                print("to stderr", file=sys.stderr)
                os.system("echo from a child")

        app = A.bind()
        """
        with FakeNode(source) as node:
            peer = node.serve()
            peer.http()
            self.assertEqual(peer.stdout(), "to stdout\nfrom a child\n")
            self.assertEqual(peer.stderr(), "to stderr\n")
            assert node.zygote is not None
            self.assertEqual(node.zygote.stdout(), "at import\n")

    def test_before_build(self) -> None:
        with FakeNode(HELLO) as node:
            node.start_zygote()
            assert node.zygote is not None
            with open("/dev/null", "wb") as null:
                fds = (null.fileno(),) * 3
                w.send_frame(node.zygote.sock, w.FORK, meta=b'{"replica_id": "x"}', fds=fds)
            message = node.zygote.expect_json(w.FAILED)
            self.assertEqual(message["replica_id"], "x")

    def test_without_descriptors(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            assert node.zygote is not None
            node.zygote.send_json(w.FORK, {"replica_id": "y"})
            self.assertIn("3 descriptors", node.zygote.expect_json(w.FAILED)["error"])

    def test_unknown_deployment(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            peer = node.fork("B", start=False)
            self.assertEqual(peer.expect_json(w.FAILED)["phase"], "import")
            self.assertEqual(os.waitstatus_to_exitcode(peer.exit_status()), 1)

    def test_thread_after_import(self) -> None:
        source = (
            HELLO
            + "import threading, time\n"
            + "t = threading.Thread(target=time.sleep, args=(60,), name='poller', daemon=True)\n"
            + "t.start()\n"
        )
        with FakeNode(source) as node:
            graph = node.build()
            self.assertEqual(graph["start"], "spawn")
            self.assertIn("poller", graph["start_reason"])

    def test_cuda_initialised(self) -> None:
        torch = "class cuda:\n    @staticmethod\n    def is_initialized(): return True\n"
        with FakeNode("import torch\n" + HELLO, torch=torch) as node:
            graph = node.build()
            self.assertEqual(graph["start"], "spawn")
            self.assertIn("CUDA", graph["start_reason"])

    def test_numpy_can_be_forked(self) -> None:
        with FakeNode(
            "import numpy\nnumpy.ones((300, 300)) @ numpy.ones((300, 300))\n" + HELLO
        ) as node:
            graph = node.build()
            if graph.get("kind") == "ModuleNotFoundError":
                self.skipTest("numpy is not installed")
            self.assertEqual((graph["start"], graph["start_reason"]), ("fork", ""))

    def test_a_fork_has_variables_of_its_own(self) -> None:
        source = """
        import os
        from ray import serve
        os.environ["MINE"] = "from the import"

        @serve.deployment
        class A:
            def __init__(self):
                names = ("CUDA_VISIBLE_DEVICES", "SECRET", "MINE")
                self.seen = [os.environ.get(n) for n in names]

            def __call__(self):
                return self.seen

        app = A.bind()
        """
        with FakeNode(source) as node:
            node.build()
            node.env = {"CUDA_VISIBLE_DEVICES": "3", "SECRET": "x", "OMP_NUM_THREADS": "many"}
            first = node.fork("A")
            node.env = {"CUDA_VISIBLE_DEVICES": "0,1", "MINE": "the node's"}
            second, spawned = node.fork("A"), node.spawn("A")
            mine = "from the import"
            self.assertEqual(json.loads(first.http().body), ["3", "x", mine])
            self.assertEqual(json.loads(second.http().body), ["0,1", None, mine])
            self.assertEqual(json.loads(spawned.http().body), ["0,1", None, mine])

    def test_threads_of_numpy_after_the_fork(self) -> None:
        """It was loaded before OMP_NUM_THREADS was known; a number of the program's own stays."""
        source = """
        import ctypes, os
        import numpy
        from ray import serve

        with open("/proc/self/maps") as f:
            paths = {l[l.index("/"):].strip() for l in f if "openblas" in l}
        blas = ctypes.CDLL(sorted(paths)[0]) if paths else None
        NAMES = [a + "openblas_%s_num_threads" + b for a in ("", "scipy_") for b in ("", "64_")]

        def function(what):
            return next((getattr(blas, n % what) for n in NAMES if hasattr(blas, n % what)), None)

        CHOSEN = None
        if function("set") and CHOSEN:
            function("set")(CHOSEN)

        @serve.deployment
        class A:
            def __call__(self):
                a = numpy.ones((300, 300))
                assert (a @ a).sum() == 300 ** 3
                return [function("get")() if function("get") else 0, os.cpu_count()]

        app = A.bind()
        """
        for chosen, given, want in (
            (None, "1", 1),
            (None, "3,2", 3),
            (None, "", os.cpu_count()),
            (5, "1", 5),
        ):
            with FakeNode(source.replace("CHOSEN = None", f"CHOSEN = {chosen}")) as node:
                if "deployments" not in node.build():
                    self.skipTest("numpy is not installed")
                node.env = {"OMP_NUM_THREADS": given}
                have, _ = json.loads(node.fork("A").http().body)
                if have == 0:
                    self.skipTest("this numpy has another BLAS")
                self.assertEqual(have, want, (chosen, given))

    def test_random_numbers_differ(self) -> None:
        source = """
        import random
        try:
            import numpy
        except ImportError:
            numpy = None
        from ray import serve

        @serve.deployment
        class A:
            def __call__(self):
                return [random.random(), float(numpy.random.rand()) if numpy else 0]

        app = A.bind()
        """
        with FakeNode(source) as node:
            node.build()
            first, second = (json.loads(node.fork("A").http().body) for _ in range(2))
            self.assertNotEqual(first[0], second[0])
            if first[1]:
                self.assertNotEqual(first[1], second[1])

    def test_chosen_seed_is_kept(self) -> None:
        source = """
        import numpy
        numpy.random.seed(5)
        from ray import serve

        @serve.deployment
        class A:
            def __call__(self):
                return float(numpy.random.rand())

        app = A.bind()
        """
        with FakeNode(source) as node:
            if "deployments" not in node.build():
                self.skipTest("numpy is not installed")
            self.assertEqual(node.fork("A").http().body, node.fork("A").http().body)

    def test_names_in_the_working_directory_hide_nothing(self) -> None:
        with FakeNode(HELLO, ray="1 / 0") as node:
            node.build()
            self.assertEqual(node.fork("A").http().body, b"hello")
            self.assertEqual(node.spawn("A").http().body, b"hello")

    def test_spawned_replica(self) -> None:
        with FakeNode(HELLO) as node:
            peer = node.spawn("A")
            self.assertEqual(peer.http().body, b"hello")
            peer.stop()
            self.assertEqual(peer.exit_status(), 0)

    def test_spawned_replica_that_cannot_import(self) -> None:
        with FakeNode("1 / 0") as node:
            peer = node.spawn("A", start=False)
            message = peer.expect_json(w.FAILED)
            self.assertEqual((message["phase"], message["kind"]), ("import", "ZeroDivisionError"))
            self.assertIn("1 / 0", message["traceback"])


class End(unittest.TestCase):
    def test_hang_up(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            peer = node.fork("A")
            assert node.zygote is not None and node.process is not None
            node.selector.unregister(node.zygote.sock)
            node.zygote.sock.close()
            self.assertEqual(node.process.wait(30), 0)
            self.assertEqual(peer.http().body, b"hello")  # replicas live on

    def test_stop(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            assert node.zygote is not None and node.process is not None
            node.zygote.send_json(w.STOP, {})
            self.assertEqual(node.process.wait(30), 0)

    def test_garbage(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            assert node.zygote is not None and node.process is not None
            node.zygote.sock.sendall(b"\xff" * 100)
            self.assertEqual(node.process.wait(30), 0)

    def test_interrupt_is_ignored(self) -> None:
        with FakeNode(HELLO) as node:
            node.build()
            assert node.process is not None
            node.process.send_signal(signal.SIGINT)
            self.assertEqual(node.fork("A").http().body, b"hello")


if __name__ == "__main__":
    unittest.main()
