#!/usr/bin/env python3
"""`ray start`, `ray stop`, `ray status`: nodes in the background and in containers."""

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
from typing import Any, Dict, List

from aliases import ONE, AliasTest, lock_holder
from harness import (RSERVE, SLOW, Server, call, descendants, free_port, main, read_process,
                     still_runs, wait_until)

SLEEPS = """
    import time
    from ray import serve

    @serve.deployment(graceful_shutdown_timeout_s=60)
    class Sleeps:
        def __call__(self, request):
            open("entered", "w").close()
            time.sleep(float(request.query_params["s"]))
            return "slept"

    app = Sleeps.bind()
"""


class RayTest(AliasTest):
    def ray(self, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return self.cmd("ray", *args, **env)

    def start_head(self, *args: str, **env: str) -> Dict[str, Any]:
        """A head in the background on free ports."""
        out = self.assertDone(self.ray("start", "--head", "--port=0", "--dashboard-port=0",
                                       "--http-port=0", "--num-cpus=2", *args, **env))
        self.assertIn("Ray runtime started.", out)
        self.assertIn("ray stop", out)
        found = [i for i in self.running() if i["kind"] == "head"]
        self.assertEqual(len(found), 1)
        self.assertIn("ray start --address='%s'" % found[0]["join"], out)
        self.assertIn("http://" + found[0]["dashboard"], out)
        return found[0]

    def port_of(self, address: str) -> int:
        return int(address.rpartition(":")[2])

    def status(self, head: Dict[str, Any]) -> Dict[str, str]:
        found = call(self.port_of(head["dashboard"]), "/api/serve/applications/").json()
        return {n: a["status"] for n, a in found["applications"].items()}


class Background(RayTest):
    def test_head_and_worker(self) -> None:
        self.write("served.py", ONE)
        head = self.start_head()
        me = read_process(head["pid"])
        assert me
        # it is nobody's child any more and no terminal is its own
        self.assertNotEqual(me.parent, os.getpid())
        self.assertEqual(os.getsid(me.pid), me.pid)
        for fd in (0, 1, 2):
            self.assertNotIn("pipe:", os.readlink("/proc/%d/fd/%d" % (me.pid, fd)))
        out = self.assertDone(self.ray("start", "--address=" + head["join"], "--num-cpus=3",
                                       "--resources", '{"disk": 2}'))
        self.assertIn("Joined:    " + head["join"], out)
        self.assertIn("none on this node", out)
        status = self.assertDone(self.ray("status"))
        self.assertEqual(status.count(" 1 node_"), 2, status)
        self.assertIn(" 0.0/5.0 CPU\n", status)
        self.assertIn(" 0.0/2.0 disk\n", status)
        self.assertIn("(no resource demands)", status)
        self.assertEqual(self.ray("health-check").returncode, 0)
        self.assertDone(self.cmd("serve", "deploy", "served:app"))
        wait_until("it runs", lambda: self.status(head) == {"default": "RUNNING"})
        self.assertIn(" 1.0/5.0 CPU\n", self.assertDone(self.ray("status")))
        self.assertEqual(call(self.port_of(head["http"])).text, "one")
        everyone = [p for i in self.running() for p in descendants(i["pid"])]
        self.assertEqual(self.assertDone(self.ray("stop")), "Stopped all 2 Ray processes.\n")
        self.assertEqual(self.running(), [])
        wait_until("no replica is left", lambda: not any(still_runs(p) for p in everyone))
        self.assertEqual(self.assertDone(self.ray("stop")),
                         "Did not find any active Ray processes.\n")

    def test_a_worker_listens_where_the_configuration_says(self) -> None:
        out = self.assertDone(self.ray("start", "--head", "--port=0", "--dashboard-port=0",
                                       "--no-http", "--num-cpus=0"))
        self.assertIn("HTTP:      none on this node", out)
        head = self.running()[0]
        # by another address than the head's: it is taken for another machine
        out = self.assertDone(self.ray("start", "--address=" + head["join"], "--num-cpus=2",
                                       "--node-ip-address=127.0.0.2"))
        self.assertIn("HTTP:      as the first configuration says", out)
        config, port = self.write_app(ONE), free_port()
        with open(config, "a", encoding="utf-8") as f:
            f.write("http_options: {host: 127.0.0.1, port: %d}\n" % port)
        self.assertDone(self.cmd("serve", "deploy", config))

        def answers() -> bool:
            try:
                return call(port).text == "one"
            except OSError:
                return False
        wait_until("the worker answers", answers)
        # the port is taken on the machine of the next one: it goes on without
        self.assertDone(self.ray("start", "--address=" + head["join"],
                                 "--node-ip-address=127.0.0.3"))
        third = max(self.running(), key=lambda i: i["started"])
        log = os.path.join(self.state, "rserve", "logs", "worker-%d.log" % third["pid"])

        def told() -> bool:
            with open(log, encoding="utf-8") as f:
                return "this node takes no HTTP requests" in f.read()
        wait_until("it is told", told)
        self.assertIn(third["pid"], [i["pid"] for i in self.running()])

    def test_what_waits_for_room_is_told(self) -> None:
        self.write("served.py", ONE)
        head = self.start_head()
        config = self.write_app(ONE, deployments="""
            - name: One
              ray_actor_options: {num_cpus: 7}
            """)
        self.assertDone(self.cmd("serve", "deploy", config))
        text = wait_until("it is told", lambda: [
            t for t in [self.assertDone(self.ray("status"))] if "pending replicas" in t])[0]
        self.assertIn('{"CPU":7}: 1+ pending replicas', text)
        self.assertIn("of One in application app", text)
        # by the address where nodes join, too
        self.assertIn("pending replicas", self.assertDone(
            self.ray("status", "--address", head["join"])))

    def test_it_keeps_nothing_of_its_caller(self) -> None:
        """A pipe that the caller had open ends with the command, not with the node."""
        own, other = os.pipe()
        self.addCleanup(os.close, own)
        r = subprocess.run([RSERVE, "ray", "start", "--head", "--port=0", "--dashboard-port=0"],
                           env=self.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           pass_fds=[other], check=False, timeout=60 * SLOW)
        os.close(other)
        self.assertEqual(r.returncode, 0, r.stdout)
        self.assertEqual(len(self.running()), 1)
        self.assertTrue(select.select([own], [], [], 10 * SLOW)[0], "the node holds it")
        self.assertEqual(os.read(own, 1), b"")

    def test_a_second_head_is_refused(self) -> None:
        head = self.start_head()
        port = str(self.port_of(head["join"]))
        r = self.ray("start", "--head", "--port", port, "--dashboard-port=0", "--http-port=0")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, "a head runs at %s already (pid %d)" % (
            head["join"], head["pid"]), "ray stop")

    def test_a_port_that_is_taken(self) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = str(s.getsockname()[1])
            for option in ("--port", "--dashboard-port", "--http-port"):
                ports = {"--port": "0", "--dashboard-port": "0", "--http-port": "0", option: port}
                with self.subTest(option=option):
                    r = self.ray("start", "--head", *[w for o in ports.items() for w in o])
                    self.assertEqual((r.returncode, r.stdout), (1, ""))
                    self.assertOneLine(r.stderr, "ray start: ", port)
        wait_until("nothing is left", lambda: not self.running())

    def test_nothing_to_join(self) -> None:
        r = self.ray("start", "--address=auto")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, "--address auto: no head", "ray start --head")
        r = self.ray("health-check", "--address", "127.0.0.1:%d" % free_port())
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, "no head at 127.0.0.1:")

    def test_interrupted_while_it_starts(self) -> None:
        """Nothing is left of a worker whose command was ended before there was a head."""
        process = subprocess.Popen(
            [RSERVE, "ray", "start", "--address=127.0.0.1:%d" % free_port()], env=self.env(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)  # type: ignore[union-attr]
        child = wait_until("it has forked", lambda: descendants(process.pid))[0]
        self.addCleanup(self.kill, child.pid)
        process.send_signal(signal.SIGINT)
        process.wait(20 * SLOW)
        wait_until("its child ends", lambda: not still_runs(child))

    def kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def test_a_head_that_was_killed(self) -> None:
        head = self.start_head()
        os.kill(head["pid"], signal.SIGKILL)
        wait_until("it is gone", lambda: not self.running())
        r = self.ray("status")  # of the default address, where somebody's may run
        self.assertNotIn(head["node_id"], r.stdout)
        self.assertNotIn(head["dashboard"], r.stderr)
        self.assertEqual(self.assertDone(self.ray("stop")),
                         "Did not find any active Ray processes.\n")
        self.start_head()

    def test_a_file_that_lies_kills_nobody(self) -> None:
        """The pid of a node is what the kernel says of its lock, not what stands in a file."""
        bystander = subprocess.Popen(["sleep", "60"])
        self.addCleanup(bystander.wait)
        self.addCleanup(bystander.kill)
        self.write("own-state/rserve/instances/feed.json",
                   '{"kind": "head", "node_id": "feed", "pid": %d, "dashboard": "x"}'
                   % bystander.pid)
        self.write("own-state/rserve/instances/garbage.json", "{")
        self.assertEqual(self.assertDone(self.ray("stop", "--force")),
                         "Did not find any active Ray processes.\n")
        self.assertIsNone(bystander.poll())
        self.assertEqual(os.listdir(os.path.join(self.state, "rserve", "instances")), [])


class Names(RayTest):
    """A head that is known by a name, which a hosts file of the test says."""

    def setUp(self) -> None:
        super().setUp()
        if os.getuid() != 0 or not shutil.which("unshare"):
            self.skipTest("needs unshare and root")
        self.hosts = self.write("hosts", "127.0.0.1 localhost\n")
        self.prefix = ["unshare", "--mount", "sh", "-c",
                       'mount --bind "$0" /etc/hosts && exec "$@"', self.hosts]

    def known(self, address: str) -> None:
        with open(self.hosts, "w", encoding="utf-8") as f:  # in place: it is what was mounted
            f.write("127.0.0.1 localhost\n%s head.of-the.test\n" % address)

    def test_a_worker_follows_the_name(self) -> None:
        head = self.start_head()
        port = self.port_of(head["join"])
        name = "head.of-the.test:%d" % port
        worker = self.spawn("worker", "--address", name, "--host", "127.0.0.1", "--port", "0",
                            prefix=self.prefix, env=self.env())
        worker.wait_output("the head is away, trying again")  # the name is not known yet
        self.assertIn("'head.of-the.test'", worker.output())
        self.assertEqual(self.nodes(head), 1)
        self.known("127.0.0.2")  # nobody listens there
        self.known("127.0.0.1")
        wait_until("it has joined", lambda: self.nodes(head) == 2, 30)
        self.assertEqual(worker.stop(), 0)

    def test_the_command_line_asks_for_it(self) -> None:
        self.known("127.0.0.1")
        head = self.start_head()
        for args in (["ray", "health-check", "--address",
                      "head.of-the.test:%d" % self.port_of(head["join"])],
                     ["serve", "status", "-a",
                      "http://head.of-the.test:%d" % self.port_of(head["dashboard"])]):
            s = self.spawn(*args, prefix=self.prefix, env=self.env())
            self.assertEqual(s.wait_exit(), 0, s.output())

    def nodes(self, head: Dict[str, Any]) -> int:
        found = call(self.port_of(head["dashboard"]), "/api/serve/applications/?extended=1")
        return len(found.json()["rserve"]["nodes"])


class Stopping(RayTest):
    def busy_head(self) -> Dict[str, Any]:
        """A head with a request under way that takes long."""
        self.write("served.py", SLEEPS)
        head = self.start_head()
        self.assertDone(self.cmd("serve", "deploy", "served:app"))
        wait_until("it runs", lambda: self.status(head) == {"default": "RUNNING"})
        self.answers: List[Any] = []

        def ask() -> None:
            try:
                self.answers.append(call(self.port_of(head["http"]), "/?s=%g" % self.seconds,
                                         timeout=60).text)
            except (OSError, ValueError) as e:
                self.answers.append(type(e).__name__)

        self.caller = threading.Thread(target=ask, daemon=True)
        self.caller.start()
        wait_until("the request is there",
                   lambda: os.path.exists(os.path.join(self.folder, "entered")))
        return head

    def test_requests_under_way_are_finished(self) -> None:
        self.seconds = 1.0
        self.busy_head()
        self.assertEqual(self.assertDone(self.ray("stop")), "Stopped all 1 Ray processes.\n")
        self.caller.join(10 * SLOW)
        self.assertEqual(self.answers, ["slept"])

    def test_the_grace_period_is_kept(self) -> None:
        self.seconds = 300.0
        head = self.busy_head()
        family = descendants(head["pid"])
        r = self.ray("stop", "--grace-period=1")
        self.assertEqual((r.returncode, r.stdout), (0, "Stopped all 1 Ray processes.\n"))
        self.assertOneLine(r.stderr, "only 0 out of 1", "1 seconds")
        wait_until("nothing is left", lambda: not any(still_runs(p) for p in family))

    def test_force(self) -> None:
        self.seconds = 300.0
        head = self.busy_head()
        family = descendants(head["pid"])
        r = self.ray("stop", "--force")
        self.assertEqual((r.returncode, r.stdout), (0, "Stopped all 1 Ray processes.\n"))
        wait_until("nothing is left", lambda: not any(still_runs(p) for p in family))


class Foreground(RayTest):
    """--block, as in a container."""

    def block(self, *args: str, prefix: Any = None) -> Server:
        return self.spawn("ray", "start", "--head", "--block", "--port=0", "--dashboard-port=0",
                          "--http-port=0", "--num-cpus=1", *args, prefix=prefix, env=self.env(),
                          cwd=self.folder)

    def test_a_signal_ends_it(self) -> None:
        s = self.block()
        s.wait_output("This command stays until a signal ends it.")
        self.assertEqual(lock_holder(os.path.join(
            self.state, "rserve", "instances", self.instances("head")[0]["node_id"] + ".json")),
            s.pid)
        self.assertEqual(s.stop(), 0)
        self.assertEqual(self.instances("head"), [])

    def test_options_of_manifests(self) -> None:
        """The line that an operator of Kubernetes writes."""
        health, metrics = free_port(), free_port()
        s = self.block("--dashboard-host=0.0.0.0", "--metrics-export-port=%d" % metrics,
                       "--dashboard-agent-listen-port=%d" % health, "--memory=1000000000",
                       "--include-dashboard=true", "--no-monitor", "--num-gpus=1",
                       "--labels=a=b,c=d", '--resources={"Custom": 2}', "--log-color=false")
        s.wait_output("Ray runtime started.")
        out = self.assertDone(self.ray("status"))
        for text in ("0.0/1.0 CPU", "0.0/1.0 GPU", "0B/953.67MiB memory", "0.0/2.0 Custom"):
            self.assertIn(" %s\n" % text, out)
        for path in ("/api/healthz", "/api/local_raylet_healthz"):
            self.assertEqual(call(health, path).text, "success")
        self.assertIn("process_resident_memory_bytes", call(metrics, "/metrics").text)
        self.assertEqual(call(metrics, "/other").status, 404)
        self.assertEqual(call(metrics, "/metrics", method="PUT", body=b"x" * 1000).status, 405)
        self.assertEqual(call(metrics, "/metrics", method="DELETE").status, 405)
        taken = self.ray("start", "--head", "--port=0", "--dashboard-port=0",
                         "--metrics-export-port=%d" % metrics)
        self.assertEqual(taken.returncode, 1)
        self.assertOneLine(taken.stderr, "--metrics-export-port", str(metrics))
        self.assertEqual(s.stop(), 0)

    def test_as_the_first_process_of_a_container(self) -> None:
        """It is process 1: a signal drains it, and what ends below it is reaped."""
        if os.getuid() != 0 or not shutil.which("unshare"):
            self.skipTest("needs unshare and root")
        self.write("served.py", SLEEPS)
        s = self.block(prefix=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
        s.wait_output("This command stays")
        one = wait_until("it runs", lambda: descendants(s.pid))[0]
        with open("/proc/%d/status" % one.pid, encoding="utf-8") as f:
            self.assertRegex(f.read(), r"NSpid:\t\d+\t1\n")
        found = self.instances("head")[0]
        s.dashboard, s.port = self.port_of(found["dashboard"]), self.port_of(found["http"])
        address = "http://" + found["dashboard"]
        self.assertDone(self.cmd("serve", "deploy", "served:app", "-a", address))
        s.wait_apps()
        answers: List[str] = []
        caller = threading.Thread(target=lambda: answers.append(s.call("/?s=1").text))
        caller.start()
        wait_until("the request is there",
                   lambda: os.path.exists(os.path.join(self.folder, "entered")))
        family = descendants(one.pid)
        os.kill(one.pid, signal.SIGTERM)
        self.assertEqual(s.wait_exit(), 0)
        caller.join(10 * SLOW)
        self.assertEqual(answers, ["slept"])
        wait_until("nothing is left", lambda: not any(still_runs(p) for p in family))


class Refusals(RayTest):
    def test_one_line(self) -> None:
        cases = (([], "expected --head"),
                 (["--head", "--address=127.0.0.1:1"], "exclude each other"),
                 (["--head", "--port=many"], "--port: expected an integer"),
                 (["--head", "--resources=[1]"], "JSON object"),
                 (["--head", "--autoscaling-config=x"], "--autoscaling-config is not supported"),
                 (["--head", "--cgroup-path", "x"], "--cgroup-path is not supported"),
                 (["--head", "--nmu-cpus=1"], "did you mean '--num-cpus'?"),
                 (["--head", "--node-manager-port"], "expected a value"),
                 (["--address=127.0.0.1:x"], "HOST:PORT"))
        for args, text in cases:
            with self.subTest(args=args):
                r = self.ray("start", *args)
                self.assertEqual((r.returncode, r.stdout), (2, ""), r.stderr)
                self.assertOneLine(r.stderr, "ray start: ", text)
        self.assertEqual(self.running(), [])

    def test_what_rserve_has_not(self) -> None:
        for verb in ("job", "list", "logs", "memory", "summary", "up"):
            r = self.ray(verb, "x")
            self.assertEqual((r.returncode, r.stdout), (2, ""))
            self.assertOneLine(r.stderr, "ray: rserve has no 'ray %s': " % verb)


if __name__ == "__main__":
    main()
