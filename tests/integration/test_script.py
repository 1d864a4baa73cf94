"""Programs that call serve.run by themselves: rserve python, and drivers of a node that runs."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import unittest

from harness import (RSERVE, SLOW, call, descendants, free_port, still_runs,
                     wait_until)

HELLO = """
    import os, sys, time
    import ray
    from ray import serve

    PORT = int(os.environ["PORT"])

    @serve.deployment
    class Hello:
        def __init__(self, word):
            self.word = word
        def __call__(self, request):
            return self.word
        def pid(self):
            return os.getpid()
        def slow(self):
            time.sleep(60)

    def start():
        serve.start(http_options={"port": PORT})
"""


def driver_socket(port):
    return call(port, "/api/version").json()["driver_socket"]


def heed_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Scripts(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rserve-script-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.port = free_port()
        self.processes = []
        self.addCleanup(self.end)

    def end(self):
        for p in self.processes:
            if p.poll() is None:
                p.kill()
            p.wait()
            for stream in (p.stdout, p.stderr):
                if stream:
                    stream.close()

    def env(self, **more):
        env = {k: v for k, v in os.environ.items()
               if k not in ("RAY_ADDRESS", "RSERVE_ADDRESS", "RAY_DASHBOARD_ADDRESS")}
        env.update(PORT=str(self.port), XDG_STATE_HOME=os.path.join(self.folder, "state"),
                   HOME=self.folder, **more)
        return env

    def write(self, name, *parts):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as f:
            f.write("\n".join(textwrap.dedent(p) for p in parts))
        return name

    def start(self, *args, **more):
        # Tests may run with SIGINT ignored, which would be inherited.
        p = subprocess.Popen([RSERVE, *args], cwd=self.folder, env=self.env(**more),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             preexec_fn=heed_interrupts)
        self.processes.append(p)
        return p

    def script(self, *parts, status=0, **more):
        """Runs a program made of HELLO and `parts` to its end; the lines that it wrote."""
        p = self.start("python", self.write("program.py", HELLO, *parts), **more)
        out, err = p.communicate(timeout=60 * SLOW)
        self.assertEqual(p.returncode, status, "%s\n%s" % (out, err))
        self.err = err
        return out.splitlines()

    def waiting_script(self, *parts, **more):
        """One that stays until it is ended; returns when it wrote "up"."""
        p = self.start("python", self.write("waiting.py", HELLO, *parts), **more)
        line = p.stdout.readline()
        self.assertEqual(line, "up\n", line or p.stderr.read())
        return p

    def assert_all_gone(self, processes):
        wait_until("no process of the node is left",
                   lambda: not any(still_runs(p) for p in processes))

    # --- a node of its own

    def test_run_and_call(self):
        out = self.script("""
            import asyncio, urllib.request
            start()
            h = serve.run(Hello.bind("hi"))
            print(urllib.request.urlopen("http://127.0.0.1:%d/" % PORT).read().decode())
            print(h.pid.remote().result() != os.getpid())
            async def both():
                return await asyncio.gather(h.pid.remote(), h.pid.remote())
            print(len(set(asyncio.run(both()))))
            print(serve.status().applications["default"].status)
            serve.delete("default")
            print(sorted(serve.status().applications))
        """)
        self.assertEqual(out, ["hi", "True", "1", "ApplicationStatus.RUNNING", "[]"])

    def test_deploying_again_replaces(self):
        out = self.script("""
            start()
            h = serve.run(Hello.bind("a"))
            first = h.pid.remote().result()
            h = serve.run(Hello.bind("a"))
            print(first != h.pid.remote().result())
        """)
        self.assertEqual(out, ["True"])

    def test_names_of_the_program_travel_by_value(self):
        self.write("helper.py", "def twice(x): return 2 * x")
        out = self.script("""
            import helper
            FACTOR = 7
            def local(x): return FACTOR * x
            @serve.deployment
            class C:
                def f(self, x): return [local(x), helper.twice(x), (lambda y: y + FACTOR)(x)]
            print(serve.run(C.bind(), route_prefix=None).f.remote(3).result())
        """)
        self.assertEqual(out, ["[21, 6, 10]"])

    def test_ray_init(self):
        out = self.script("""
            with ray.init(num_cpus=3) as context:
                print(ray.is_initialized(), bool(context["node_id"]))
                try:
                    ray.init()
                except RuntimeError as e:
                    print("twice" in str(e))
                ray.init(ignore_reinit_error=True)
                start()
                serve.run(Hello.bind("x"))
                serve.shutdown()
                print(ray.is_initialized())
            print(ray.is_initialized())
        """)
        self.assertEqual(out, ["True True", "True", "True", "False"])

    def test_shutdown_ends_the_node_and_run_starts_another(self):
        out = self.script("""
            start(); serve.run(Hello.bind("x")); serve.shutdown()
            print(ray.is_initialized())
            start(); serve.run(Hello.bind("y"))
            import urllib.request
            print(urllib.request.urlopen("http://127.0.0.1:%d/" % PORT).read().decode())
        """)
        self.assertEqual(out, ["False", "y"])

    def test_taken_port(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", self.port))
            s.listen()
            out = self.script("""
                try:
                    start()
                except RuntimeError as e:
                    print(e)
            """)
        self.assertIn(str(self.port), out[0])
        self.assertIn("in use", out[0])

    def test_failing_constructor(self):
        out = self.script("""
            @serve.deployment(max_constructor_retry_count=1)
            class Bad:
                def __init__(self): raise OSError("on purpose")
            try:
                serve.run(Bad.bind(), name="bad", route_prefix=None)
            except RuntimeError as e:
                print(str(e).startswith("Deploying application bad failed"))
            print(serve.status().applications["bad"].status)
        """)
        self.assertEqual(out, ["True", "ApplicationStatus.DEPLOY_FAILED"])

    def test_what_cannot_be_pickled(self):
        out = self.script("""
            import threading
            try:
                serve.run(Hello.bind(threading.Lock()), route_prefix=None)
            except TypeError as e:
                print("pickle" in str(e))
            print(serve.run(Hello.bind("fine"), route_prefix=None).pid.remote().result() > 0)
        """)
        self.assertEqual(out, ["True", "True"])

    def test_exit_status_and_arguments(self):
        self.write("args.py", "import sys; print(sys.argv[1:]); sys.exit(3)")
        p = self.start("python", "args.py", "--help", "-x")
        out, _ = p.communicate(timeout=30 * SLOW)
        self.assertEqual((p.returncode, out), (3, "['--help', '-x']\n"))

    def test_ctrl_c(self):
        p = self.waiting_script("""
            start()
            serve.run(Hello.bind("x"))
            print("up", flush=True)
            serve.run(Hello.bind("y"), blocking=True)
        """)
        wait_until("the second version answers", lambda: call(self.port).text == "y")
        processes = descendants(p.pid)
        p.send_signal(signal.SIGINT)
        p.wait(30 * SLOW)
        self.assertIn("KeyboardInterrupt", p.stderr.read())
        self.assert_all_gone(processes)

    def test_killed_program(self):
        p = self.waiting_script("""
            start()
            h = serve.run(Hello.bind("x"))
            h.slow.remote()
            print("up", flush=True)
            time.sleep(600)
        """)
        processes = [q for q in descendants(p.pid)]
        self.assertGreater(len(processes), 2)
        p.kill()
        self.assert_all_gone(processes)

    def test_killed_node(self):
        p = self.waiting_script("""
            start()
            h = serve.run(Hello.bind("x"))
            waiting = h.slow.remote()
            print("up", flush=True)
            try:
                waiting.result(timeout_s=60)
            except Exception as e:
                print(type(e).__name__, e)
            print(serve.run(Hello.bind("again"), route_prefix=None).pid.remote().result() > 0)
        """)
        node = next(q for q in descendants(p.pid) if q.parent == p.pid)
        self.assertEqual(node.command, "rserve")
        os.kill(node.pid, signal.SIGKILL)
        out, err = p.communicate(timeout=60 * SLOW)
        self.assertIn("The connection to rserve is lost", out, err)
        self.assertTrue(out.endswith("True\n"), out + err)

    def test_forked_child_does_not_end_the_node(self):
        out = self.script("""
            start()
            h = serve.run(Hello.bind("x"))
            pid = os.fork()
            if pid == 0:
                try:
                    serve.status()
                except Exception as e:
                    print("child:", "forked" in str(e), flush=True)
                sys.exit(0)
            os.waitpid(pid, 0)
            print(h.pid.remote().result() > 0)
        """)
        self.assertEqual(out, ["child: True", "True"])

    # --- a node that runs

    def running_node(self):
        self.write("empty.yaml", "applications: []\n")
        rest = free_port()
        self.start("run", "empty.yaml", "--port", str(self.port), "--dashboard-port", str(rest))
        wait_until("the node answers", lambda: self.answers(rest))
        return rest

    def answers(self, port):
        try:
            return call(port, "/-/healthz").status == 200
        except OSError:
            return False

    def test_running_node_is_joined_and_stays(self):
        rest = self.running_node()
        out = self.script("""
            h = serve.run(Hello.bind("kept"), name="mine", route_prefix="/mine")
            print(h.pid.remote().result() > 0)
        """, RAY_DASHBOARD_ADDRESS="http://127.0.0.1:%d" % rest)
        self.assertEqual(out, ["True"])
        self.assertEqual(call(self.port, "/mine").text, "kept")
        app = call(rest, "/api/serve/applications/").json()["applications"]["mine"]
        self.assertEqual((app["source"], app["deployed_app_config"]), ("imperative", None))
        # A file that is deployed does not delete it.
        put = call(rest, "/api/serve/applications/", "PUT", {"applications": []})
        self.assertEqual(put.status, 200)
        self.assertEqual(call(self.port, "/mine").text, "kept")

    def test_default_instance_is_found(self):
        self.running_node()
        out = self.script("""
            ray.init(address="auto")
            print(sorted(serve.status().applications))
            serve.run(Hello.bind("x"), name="a")
        """)
        self.assertEqual(out, ["[]"])
        self.assertEqual(call(self.port).text, "x")

    def test_no_instance(self):
        out = self.script("""
            for address in ("auto", "127.0.0.1:%d" % PORT):
                try:
                    ray.init(address=address)
                except ConnectionError as e:
                    print(e)
        """)
        self.assertIn("no rserve of this user runs", out[0])
        self.assertIn("no rserve answers at 127.0.0.1:%d" % self.port, out[1])

    def test_garbage_on_the_socket(self):
        rest = self.running_node()
        path = driver_socket(rest)
        for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"", b"\xff" * 100):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.sendall(data)
        self.assertEqual(self.script("print(len(serve.status().applications))",
                                     RAY_DASHBOARD_ADDRESS="http://127.0.0.1:%d" % rest), ["0"])

    def test_other_protocol(self):
        rest = self.running_node()
        out = self.script("""
            from rserve import _wire
            _wire.PROTOCOL = 99
            try:
                ray.init()
            except ConnectionError as e:
                print(e)
        """, RAY_DASHBOARD_ADDRESS="http://127.0.0.1:%d" % rest)
        self.assertIn("speaks protocol 99", out[0])

    def test_many_programs_leave_no_descriptor(self):
        rest = self.running_node()
        node = self.processes[0].pid
        path = driver_socket(rest)

        def count():
            return len(os.listdir("/proc/%d/fd" % node))

        before = count()
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
        wait_until("the descriptors are as before", lambda: count() <= before)

    def test_serve_run_inside_of_a_replica(self):
        out = self.script("""
            @serve.deployment
            class Outer:
                def deploy(self):
                    serve.run(Hello.bind("inner"), name="inner", route_prefix="/inner")
                    return sorted(serve.status().applications)
            start()
            print(serve.run(Outer.bind()).deploy.remote().result())
            import urllib.request
            print(urllib.request.urlopen("http://127.0.0.1:%d/inner" % PORT).read().decode())
        """)
        self.assertEqual(out, ["['default', 'inner']", "inner"])


if __name__ == "__main__":
    unittest.main()
