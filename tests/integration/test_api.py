#!/usr/bin/env python3
"""/api/v1: what it shows, what it changes, its OpenAPI document, and conditions of changes."""

import os
import random
import re
import signal
import socket
import subprocess
import threading
from typing import Any, Dict, List

from harness import SOURCE, Answer, Load, Server, ServeTest, call, main, rserve, wait_until
from openapi import Document

CODE = """\
    import os
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
    class A:
        def __call__(self, request):
            return str(os.getpid())

    @serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
    class Outer:
        def __init__(self, inner):
            self.inner = inner
        async def __call__(self, request):
            return await self.inner.__call__.remote(None)

    app = A.bind()
    two = Outer.bind(A.bind())
    """


class Api(ServeTest):
    def started(self) -> Server:
        return self.serve_code(CODE, cwd=self.folder)  # where modules of REST's are looked for

    def v1(self, s: Server, path: str, method: str = "GET", body: Any = None,
           **headers: str) -> Answer:
        return call(s.dashboard, "/api/v1" + path, method=method, body=body,
                    headers={k.replace("_", "-"): v for k, v in headers.items()})

    def error(self, answer: Answer, status: int, *parts: str) -> None:
        self.assertEqual(answer.status, status, answer.text)
        self.assertEqual(list(answer.json()), ["error"])
        self.assertOneLine(answer.json()["error"], *parts)

    def test_document(self) -> None:
        """Every path of the document answers, as its schema says, and every route is in it."""
        s = self.started()
        document = self.v1(s, "/openapi.json").json()
        spec = Document(document)
        self.assertEqual(document["openapi"], "3.1.0")
        routes = {(r["path"], r["method"].lower())
                  for r in call(s.dashboard, "/api").json()}
        self.assertEqual(routes, {(p, m) for p, of in document["paths"].items() for m in of})
        with open(os.path.join(SOURCE, "docs", "rest.md"), encoding="utf-8") as f:
            told = f.read()
        for path in document["paths"]:
            self.assertRegex(told, "`[A-Z` ,]*%s/?`" % re.escape(path), "docs/rest.md")
        ids = [o["operationId"] for of in document["paths"].values() for o in of.values()]
        self.assertEqual(len(ids), len(set(ids)))
        node = self.v1(s, "/nodes").json()["nodes"][0]["node_id"]
        config = self.v1(s, "/config").json()["config"]
        values = {"app": "app", "deployment": "A", "node": node,
                  "replica": self.v1(s, "/replicas").json()["replicas"][0]["replica_id"],
                  "plan": self.v1(s, "/plan", "POST", config).json()["id"]}
        bodies: Dict[str, Any] = {
            "PUT /api/v1/applications/{app}": config["applications"][0],
            "POST /api/v1/applications/{app}/deployments/{deployment}/scale":
                {"target_num_replicas": 1},
            "POST /api/v1/applications/{app}/rollback": {"to": 1},
            "POST /api/v1/applications/{app}/rollout": {"action": "resume"},
            "POST /api/v1/applications/{app}/deployments/{deployment}/rollout":
                {"action": "abort"},
        }
        # what deletes comes last, the most last
        order = sorted(routes, key=lambda r: (r[1] == "delete", "{replica}" not in r[0],
                                              -len(r[0]), r))
        for path, method in order:
            operation = document["paths"][path][method]
            name = "%s %s" % (method.upper(), path)
            wanted = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            self.assertEqual(wanted, set(re.findall(r"{(\w+)}", path)), name)
            body = bodies.get(name, config) if "requestBody" in operation else None
            answer = call(s.dashboard, path.format(**values), method=method.upper(), body=body)
            if answer.status == 404 and "{replica}" in path:  # what was called before replaced it
                answer = wait_until("a replica is there", lambda p=path, m=method: self.of_replica(
                    s, p, m.upper()))
            if answer.status == 501:
                continue
            self.assertNotIn(answer.status, (404, 405), "%s: %s" % (name, answer.text))
            self.check(spec, path, method, answer, name)
        # each of them refuses in the same form what it does not know
        for path, method in order:
            if "{" in path:
                answer = call(s.dashboard, re.sub(r"{\w+}", "nobody", path),
                              method=method.upper(), body={} if method in ("put", "post") else None)
                self.assertGreaterEqual(answer.status, 400, path)
                self.error(answer, answer.status)

    def of_replica(self, s: Server, path: str, method: str) -> Any:
        for r in s.replicas("app", "A"):
            answer = call(s.dashboard, path.format(replica=r["replica_id"]), method=method)
            if answer.status != 404:
                return answer
        return None

    def check(self, spec: Document, path: str, method: str, answer: Answer, name: str) -> None:
        by_type = spec.answer_schema(path, method, answer.status)
        kind = answer.headers.get("content-type", "text/plain").split(";")[0]
        self.assertIn(kind, by_type, "%s: %s" % (name, answer.text))
        if kind == "application/json":
            faults = spec.faults(answer.json(), by_type[kind])
            self.assertEqual(faults, [], name)

    def test_views(self) -> None:
        s = self.started()
        self.assertEqual(self.v1(s, "/applications/b", "PUT",
                                 {"import_path": "served:two", "route_prefix": "/b"}).status, 200)
        s.wait_apps({"b": "RUNNING"})
        apps = {a["name"]: a for a in self.v1(s, "/applications").json()["applications"]}
        self.assertEqual(set(apps), {"app", "b"})
        self.assertEqual({d["name"] for d in apps["b"]["deployments"]}, {"A", "Outer"})
        self.assertEqual(self.v1(s, "/applications/b").json()["name"], "b")
        of_b = self.v1(s, "/deployments?app=b").json()["deployments"]
        self.assertEqual({(d["app"], d["name"]) for d in of_b}, {("b", "A"), ("b", "Outer")})
        replicas = self.v1(s, "/replicas?app=b&deployment=A&state=RUNNING").json()["replicas"]
        self.assertEqual(len(replicas), 1)
        one = replicas[0]
        self.assertEqual({one["pid"]}, s.pids("b", "A"))
        self.assertEqual(self.v1(s, "/replicas/" + one["replica_id"]).json()["pid"], one["pid"])
        self.assertEqual(self.v1(s, "/replicas?node=elsewhere").json(), {"replicas": []})
        self.assertEqual(self.v1(s, "/replicas?state=STARTING").json(), {"replicas": []})
        nodes = self.v1(s, "/nodes").json()["nodes"]
        self.assertEqual(len(nodes), 1)
        self.assertEqual(len(nodes[0]["replicas"]), 3)
        self.assertLess(nodes[0]["free"]["CPU"], nodes[0]["resources"]["CPU"])
        by_name = self.v1(s, "/nodes/" + nodes[0]["name"]).json()
        self.assertEqual(by_name["node_id"], nodes[0]["node_id"])
        s.call("/b")
        figures = self.v1(s, "/metrics?name=ray_serve_num_http_requests").json()
        samples = [x for f in figures["families"] for x in f["samples"]]
        self.assertTrue(any(x["value"] and x["value"] >= 1 for x in samples), figures)
        # a replica that died is told of, with its successor
        os.kill(one["pid"], signal.SIGKILL)
        wait_until("another one runs", lambda: [
            r for r in self.v1(s, "/replicas?app=b&deployment=A&state=RUNNING").json()["replicas"]
            if r["pid"] != one["pid"]])
        d = self.v1(s, "/applications/b/deployments/A").json()
        self.assertEqual([r["replica_id"] for r in d["recent_dead_replicas"]],
                         [one["replica_id"]])
        self.error(self.v1(s, "/replicas/" + one["replica_id"]), 404, one["replica_id"], "lives")

    def test_the_same_again_changes_nothing(self) -> None:
        s = self.started()
        pids = s.pids("app", "A")
        config = self.v1(s, "/config")
        for _ in range(3):
            again = self.v1(s, "/config", "PUT", config.json()["config"])
            self.assertEqual((again.status, again.json()["changed"]), (200, False), again.text)
            self.assertEqual(again.headers["etag"], config.headers["etag"])
            ray = s.rest("PUT", config.json()["config"])
            self.assertEqual((ray.status, ray.body, ray.headers["x-rserve-changed"]),
                             (200, b"", "false"))
        # the order of members is no difference; another value is one
        app = dict(reversed(list(config.json()["config"]["applications"][0].items())))
        self.assertFalse(self.v1(s, "/applications/app", "PUT", app).json()["changed"])
        s.wait_apps()
        self.assertEqual(s.pids("app", "A"), pids)
        app["deployments"] = [{"name": "A", "ray_actor_options": {"num_cpus": 0.2}}]
        self.error(self.v1(s, "/applications/app?no_restart=1", "PUT", app), 409, "restart")
        app["deployments"] = [{"name": "A", "num_replicas": 2}]
        more = self.v1(s, "/applications/app", "PUT", app).json()
        self.assertTrue(more["changed"])
        wait_until("two replicas", lambda: len(s.pids("app", "A")) == 2)
        self.assertTrue(pids < s.pids("app", "A"))
        # one that failed is tried again
        broken = {"import_path": "absent:app", "route_prefix": "/broken"}
        self.assertTrue(self.v1(s, "/applications/broken", "PUT", broken).json()["changed"])
        s.wait_apps({"broken": "DEPLOY_FAILED"})
        self.assertTrue(self.v1(s, "/applications/broken", "PUT", broken).json()["changed"])
        self.assertTrue(self.v1(s, "/applications/broken", "DELETE").json()["changed"])

    def test_conditions(self) -> None:
        s = self.started()
        whole, one = self.v1(s, "/config"), self.v1(s, "/applications/app")
        self.assertEqual(s.rest().headers["etag"], whole.headers["etag"])
        self.assertEqual(whole.json()["etag"], whole.headers["etag"])
        self.assertEqual(one.json()["etag"], one.headers["etag"])
        self.assertEqual(self.v1(s, "/config", If_None_Match=whole.headers["etag"]).status, 304)
        self.assertEqual(self.v1(s, "/config", If_None_Match='"other"').status, 200)
        config = whole.json()["config"]
        app = dict(config["applications"][0], route_prefix="/x")
        first = self.v1(s, "/applications/app", "PUT", app, If_Match=one.headers["etag"],
                        User_Agent="the first one")
        self.assertEqual((first.status, first.json()["changed"]), (200, True))
        second = dict(app, route_prefix="/y")
        refused = self.v1(s, "/applications/app", "PUT", second, If_Match=one.headers["etag"])
        self.error(refused, 412, "the first one changed it", first.headers["etag"])
        self.assertEqual(refused.headers["etag"], first.headers["etag"])
        stale = {"If-Match": whole.headers["etag"]}
        for method, path, body in (("PUT", "/api/serve/applications/", config),
                                   ("PUT", "/api/v1/config", config),
                                   ("DELETE", "/api/serve/applications/", None)):
            self.error(call(s.dashboard, path, method=method, body=body, headers=stale), 412,
                       "the configuration", "the first one changed it")
        self.error(self.v1(s, "/applications/app", "DELETE", If_Match='"a", "b"'), 412)
        self.error(self.v1(s, "/applications/new", "PUT", second, If_Match="*"), 412,
                   "not there")
        self.error(self.v1(s, "/applications/app", "PUT", second, If_None_Match="*"), 412)
        self.assertEqual(self.v1(s, "/applications/app").json()["etag"], first.headers["etag"])
        tags = '"nonsense", W/%s' % first.headers["etag"]
        self.assertEqual(self.v1(s, "/applications/app", "PUT", second, If_Match=tags).status, 200)
        new = {"import_path": "served:app", "route_prefix": "/new"}
        self.assertEqual(self.v1(s, "/applications/new", "PUT", new, If_None_Match="*").status, 200)
        s.wait_apps()
        self.assertEqual(s.call("/new").status, 200)

    def test_two_deployers(self) -> None:
        """Of many who change the same state of things, one does."""
        s = self.started()
        etag = self.v1(s, "/applications/app").headers["etag"]
        app = self.v1(s, "/config").json()["config"]["applications"][0]
        answers: List[int] = []

        def deploy(n: int) -> None:
            body = dict(app, deployments=[{"name": "A", "user_config": None,
                                           "max_ongoing_requests": n + 10}])
            answers.append(self.v1(s, "/applications/app", "PUT", body, If_Match=etag).status)
        threads = [threading.Thread(target=deploy, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sorted(answers), [200] + [412] * 7)

    def test_replace_a_replica(self) -> None:
        """The new one first: none of the requests meanwhile is lost, and one more order waits."""
        s = self.started()
        app = self.v1(s, "/config").json()["config"]["applications"][0]
        app["deployments"] = [{"name": "A", "num_replicas": 2}]
        self.v1(s, "/applications/app", "PUT", app)
        wait_until("two replicas", lambda: len(s.pids("app", "A")) == 2)
        load = Load(s.port)
        load.wait(20)
        old = {r["replica_id"] for r in s.replicas("app", "A")}
        for replica in old:
            told = self.v1(s, "/replicas/" + replica, "DELETE")
            self.assertEqual((told.status, list(told.json())), (200, ["message"]))
        wait_until("others have taken their places", lambda: len(s.replicas("app", "A")) == 2 and
                   not old & {r["replica_id"] for r in s.replicas("app", "A")}, 40)
        load.wait(20)
        self.assertEqual(set(load.stop()), {200})
        for replica in (sorted(old)[0], "nobody"):
            self.error(self.v1(s, "/replicas/" + replica, "DELETE"), 404, replica)
        events = self.v1(s, "/events").json()["events"]
        kinds = {(e["kind"], e.get("status")) for e in events if e.get("replica") in old}
        self.assertLessEqual({("deploy", "REPLACE"), ("replace", "ASKED")}, kinds)

    def deploy(self, s: Server, *args: str) -> "subprocess.CompletedProcess[str]":
        return rserve("deploy", *args, timeout=60, env={
            "RSERVE_ADDRESS": "http://127.0.0.1:%d" % s.dashboard, "USER": "ann"})

    def test_deploy_if_match(self) -> None:
        s = self.started()
        path = os.path.join(self.folder, "app.yaml")
        etag = self.v1(s, "/config").json()["etag"]
        done = self.deploy(s, "--if-match", etag.strip('"'), "-q", path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        stale = self.deploy(s, "--if-match", etag, path)
        self.assertEqual(stale.returncode, 1)
        self.assertOneLine(stale.stderr, "412", "ann@", "changed it")
        for wrong in ("", "a b", "x\r\ny: z", "x" * 100):
            refused = self.deploy(s, "--if-match", wrong, path)
            self.assertEqual(refused.returncode, 2, refused.stderr)

    def test_many_add(self) -> None:
        """`deploy --add` looks again where somebody else was faster: no application is lost."""
        s = self.started()
        names = ["n%d" % i for i in range(4)]
        ends: List[int] = []
        threads = [threading.Thread(target=lambda n=n: ends.append(self.deploy(
            s, "--add", "--no-wait", "-q", "served:app", "--name", n, "--route-prefix", "/" + n,
            "--app-dir", self.folder).returncode)) for n in names]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(ends, [0] * 4)
        self.assertEqual({a["name"] for a in self.v1(s, "/applications").json()["applications"]},
                         {"app", *names})

    def test_methods(self) -> None:
        s = self.started()
        head = call(s.dashboard, "/api/v1/applications", method="HEAD")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertGreater(int(head.headers["content-length"]), 100)
        asked = call(s.dashboard, "/api/v1/applications/app", method="OPTIONS")
        self.assertEqual((asked.status, asked.headers["allow"]),
                         (204, "GET, HEAD, PUT, DELETE, OPTIONS"))
        wrong = self.v1(s, "/applications/app", "PATCH", {})
        self.error(wrong, 405, "PATCH")
        self.assertEqual(wrong.headers["allow"], "GET, HEAD, PUT, DELETE")
        self.error(self.v1(s, "/nowhere"), 404, "GET /api lists")

    def test_what_is_wrong(self) -> None:
        s = self.started()
        etag = self.v1(s, "/config").headers["etag"]
        for body in (b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"name": "other"}', b"null",
                     b'{"import_path": 7}',
                     b'{"import_path": "a:b", "deployments": [{"name": 1}]}', b"[" * 100000):
            self.error(self.v1(s, "/applications/app", "PUT", body), 400)
        wrong = self.v1(s, "/applications/app", "PUT", {"import_path": "a:b", "deployments": [
            {"name": "A", "user_config": 7}]})
        self.assertTrue(wrong.json()["error"].startswith("body: applications[0].deployments[0]"),
                        wrong.text)
        big = b'{"import_path": "%s"}' % (b"x" * (5 << 20))
        for path in ("/applications/app", "/config"):
            self.error(self.v1(s, path, "PUT", big), 413, "at most")
        self.assertEqual(self.v1(s, "/config").headers["etag"], etag)
        self.assertEqual(s.call().status, 200)

    def test_garbage(self) -> None:
        """Whatever a client sends and however it ends, the others are served."""
        s = self.started()
        rng = random.Random(5)
        seeds = [b"GET /api/v1/applications/app HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 b"PUT /api/v1/applications/app HTTP/1.1\r\nHost: localhost\r\nIf-Match: \"x\"\r\n"
                 b"Content-Length: 20\r\n\r\n{\"import_path\": \"a\"}",
                 b"GET /api/v1/replicas?app=%00&state=%ff&node=a%2fb HTTP/1.1\r\n"
                 b"Host: localhost\r\n\r\n",
                 b"POST /api/v1/plan HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                 b"\r\n2\r\n{}\r\n0\r\n\r\n"]
        for _ in range(300):
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(len(data))
                data[at:at + rng.randrange(3)] = bytes(rng.randrange(256)
                                                       for _ in range(rng.randrange(3)))
            with socket.create_connection(("127.0.0.1", s.dashboard), timeout=20) as c:
                c.sendall(bytes(data))
        self.assertEqual(self.v1(s, "/applications").status, 200)
        self.assertEqual(s.process.poll(), None)


if __name__ == "__main__":
    main()
