#!/usr/bin/env python3
"""The control plane of `rserve head` dies, at any moment: nobody who is served notices, and what
was under way is done."""

import os
import signal
import subprocess
import threading
import time
from typing import Any, Dict, List

from harness import RSERVE, Load, Server, ServeTest, free_port, main, wait_until

CODE = '''
import os, time
from ray import serve

@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
class A:
    def __init__(self, version=0):
        time.sleep(0.1)
        self.version = version
    def reconfigure(self, config):
        self.said = config
    async def __call__(self, request):
        return "%s %s %d" % (self.version, self.said, os.getpid())

def build(args):
    return A.options(user_config={"say": args.get("say", "-")}).bind(args.get("version", 0))
'''

PROGRAM = '''
import sys
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
def f(request):
    return "program"

print("asks", flush=True)
sys.stdin.readline()
serve.run(f.bind(), name="program", route_prefix="/program")
print("has it", flush=True)
'''


class ControlPlane(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("served.py", CODE)
        self.state = os.path.join(self.folder, "kept")

    def head(self, *args: str) -> Server:
        s = self.spawn("head", "--num-cpus", "4", "--host", "127.0.0.1", "--port",
                       str(free_port()), "--dashboard-port", str(free_port()), "--listen",
                       "127.0.0.1:%d" % free_port(), "--state-dir", self.state, *args)
        s.port, s.dashboard = int(s.args[s.args.index("--port") + 1]), int(
            s.args[s.args.index("--dashboard-port") + 1])
        s.wait_rest()
        return s

    def kill(self, head: Server, number: int = signal.SIGKILL) -> int:
        """One that runs; another one follows."""
        pid = wait_until("there is a control plane", lambda: head.control_pid())
        os.kill(pid, number)
        wait_until("there is another", lambda: head.control_pid() not in (0, pid))
        return int(pid)

    def config(self, *apps: str, **args: Any) -> Dict[str, Any]:
        return {"applications": [
            {"name": n, "route_prefix": "/" + n, "import_path": "served:build", "args": args,
             "rserve": {"app_dir": self.folder}} for n in apps]}

    def put(self, head: Server, config: Dict[str, Any]) -> None:
        """A deployer tries again when its connection breaks."""
        def done() -> bool:
            try:
                return head.rest("PUT", config).status == 200
            except OSError:
                return False
        wait_until("it is taken", done)

    def test_killed_under_load(self) -> None:
        head = self.head()
        self.put(head, self.config("app"))
        head.wait_apps()
        pids = head.pids("app", "A")
        load = Load(head.port, "/app")
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGKILL):
            load.wait(20)
            self.kill(head, number)
            load.wait(20)
            head.wait_apps()
            self.assertEqual(head.pids("app", "A"), pids)
        load.wait(20)
        self.assertEqual(set(load.stop()), {200})
        self.assertLessEqual({int(t.split()[-1]) for _, t in load.results}, pids)
        head.wait_output("the control plane ended and is started again")
        self.assertNoZombies(head)
        # what it is asked next is done
        self.put(head, {"applications": []})
        wait_until("it is deleted", lambda: not head.details()["applications"])
        control = head.control_pid()
        self.assertEqual(head.stop(), 0)
        self.assertFalse(os.path.exists("/proc/%d" % control))

    def happened(self, head: Server, **query: int) -> int:
        """The number of the newest event. 0: the control plane that was asked is gone."""
        try:
            path = "/api/v1/events?" + "&".join("%s=%d" % q for q in query.items())
            return max([e["seq"] for e in head.rest(path=path).json()["events"]], default=0)
        except OSError:
            return 0

    def change_and_kill(self, head: Server, config: Dict[str, Any], step: int) -> bool:
        """An order, and a kill when so many things have happened. False: there were fewer."""
        answers: List[int] = []
        before = self.happened(head, limit=1)
        pid = head.control_pid()

        def order() -> None:
            try:
                answers.append(head.rest("PUT", config).status)
            except OSError:
                answers.append(0)

        t = threading.Thread(target=order)
        t.start()
        found = not step or self.happened(head, after=before + step - 1, wait=3) > 0
        if found:
            self.assertEqual(head.control_pid(), pid)
            self.kill(head)
        t.join()
        if answers == [0]:  # not acknowledged: nobody knows
            self.put(head, config)
        return found

    def test_killed_at_every_step_of_a_change(self) -> None:
        """Another number of replicas, new code and a second application, which goes again: each is
        finished, nothing else is left, and no request is lost meanwhile."""
        head = self.head()
        self.put(head, self.config("app"))
        head.wait_apps()
        load = Load(head.port, "/app")
        step, going = 0, True
        while going and step < 40:
            config = self.config("app", version=step, say=step)
            if step % 3 == 1:
                config["applications"] += self.config("other", version=step)["applications"]
            count = 3 if step % 4 == 2 else 2
            config["applications"][0]["deployments"] = [{"name": "A", "num_replicas": count}]
            going = self.change_and_kill(head, config, step)
            names = {a["name"]: "RUNNING" for a in config["applications"]}
            head.wait_apps(names)
            wait_until("nothing else is there",
                       lambda n=names: sorted(head.details()["applications"]) == sorted(n))
            wanted = "%d {'say': %d} " % (step, step)
            wait_until("step %d has come" % step, lambda w=wanted: all(
                head.call("/app").text.startswith(w) for _ in range(6)))
            wait_until("so many replicas",
                       lambda c=count: len(head.replicas("app", "A")) == c)
            step += 1 if step < 7 else 3
        self.assertGreater(step, 7)
        self.assertEqual(set(load.stop()), {200})

    def test_programs_ask_again(self) -> None:
        """Who asked the one that died is answered by the next."""
        head = self.head()
        env = dict(os.environ, RAY_DASHBOARD_ADDRESS="127.0.0.1:%d" % head.dashboard,
                   RAY_ADDRESS=head.args[head.args.index("--listen") + 1],
                   XDG_STATE_HOME=head.state)
        program = subprocess.Popen([RSERVE, "python", self.write("program.py", PROGRAM)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env=env)
        assert program.stdin and program.stdout
        self.assertEqual(program.stdout.readline().strip(), "asks")
        pid = head.control_pid()
        os.kill(pid, signal.SIGSTOP)
        program.stdin.write("\n")
        program.stdin.flush()
        self.assertEqual(head.call("/nothing").status, 404)
        time.sleep(0.3) # the question is with one that will not answer it
        self.kill(head)
        self.assertEqual(program.stdout.readline().strip(), "has it")
        self.assertEqual(program.wait(30), 0)
        program.stdin.close()
        program.stdout.close()
        wait_until("it is served", lambda: head.call("/program").text == "program")

    def test_metrics(self) -> None:
        """/metrics has both: what the node measures, and what the control plane knows."""
        head = self.head()
        self.put(head, self.config("app"))
        head.wait_apps()
        self.assertEqual(head.call("/app").status, 200)
        text = head.rest(path="/metrics").text
        self.assertIn('ray_serve_num_http_requests_total{', text)
        self.assertIn('ray_serve_application_status{application="app"} 6', text)
        self.assertEqual(text.count("\nprocess_start_time_seconds "), 1, text)
        for name in ("ray_serve_num_http_requests", "ray_serve_application_status"):
            found = head.rest(path="/api/v1/metrics?name=" + name).json()["families"]
            self.assertTrue(found, name)
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(len(names), len(set(names)))
        # one that cannot say anything does not keep the others from saying it
        os.kill(head.pid, signal.SIGSTOP)
        try:
            text = head.rest(path="/metrics").text
        finally:
            os.kill(head.pid, signal.SIGCONT)
        self.assertIn('ray_serve_application_status{application="app"} 6', text)

    def test_dies_again_and_again(self) -> None:
        """It is started again each time, if not at once."""
        head = self.head()
        for _ in range(5):
            self.kill(head)
        head.wait_output("in_ms=")
        head.wait_rest()
        self.assertEqual(head.stop(), 0)


if __name__ == "__main__":
    main()
