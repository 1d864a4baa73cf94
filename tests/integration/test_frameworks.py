#!/usr/bin/env python3
"""Applications of real frameworks, and the same application in each way to run one."""

import asyncio
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Tuple

from harness import RSERVE, SLOW, SOURCE, ServeTest, Server, free_port, main, wait_until

PROGRAMS = os.path.join(SOURCE, "tests", "integration", "apps")
NODE_NAMES = ("RAY_ADDRESS", "RSERVE_ADDRESS", "RAY_DASHBOARD_ADDRESS", "PYTHONPATH", "RSERVE_BIN")


def has(*modules: str) -> bool:
    return all(importlib.util.find_spec(m) is not None for m in modules)


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Modes(ServeTest):
    """rserve run, rserve python, python with the wheel, local testing mode: the same answers."""

    wheel_folder = ""

    @classmethod
    def venv(cls) -> str:
        """An interpreter that has the wheel and nothing else; made when first asked for."""
        if not cls.wheel_folder:
            cls.wheel_folder = tempfile.mkdtemp(prefix="rserve-frameworks-")
            cls.addClassCleanup(shutil.rmtree, cls.wheel_folder, True)
            builder = os.path.join(SOURCE, "sched", "pyruntime", "wheel.py")
            wheel = subprocess.run(
                [sys.executable, builder, "--binary", RSERVE, "--version", "0.1.0",
                 "--out", cls.wheel_folder],
                check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
            venv = os.path.join(cls.wheel_folder, "venv")
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([os.path.join(venv, "bin", "pip"), "install", "-q", "--no-index",
                            "--disable-pip-version-check", wheel], check=True)
        return os.path.join(cls.wheel_folder, "venv", "bin", "python")

    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(PROGRAMS, os.path.join(self.folder, "apps"))

    def program(self, name: str, mode: str, *command: str, **more: str) -> Dict[str, Any]:
        """What the program printed, run by `command`."""
        env = {k: v for k, v in os.environ.items() if k not in NODE_NAMES}
        env.update(dict({"PORT": str(free_port())}, **more), MODE=mode, HOME=self.folder,
                   PYTHONDONTWRITEBYTECODE="1", XDG_STATE_HOME=os.path.join(self.folder, "state"))
        if name == "modern":
            env["FACTS"] = "heavy"
        p = subprocess.Popen([*command, name + ".py"], cwd=os.path.join(self.folder, "apps"),
                             env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             universal_newlines=True, preexec_fn=heed_interrupts)
        try:
            out, err = p.communicate(timeout=90 * SLOW)
        finally:
            if p.poll() is None:
                p.kill()
                p.communicate()
        self.assertEqual(p.returncode, 0, out + err)
        self.logs.append("%s %s: %s" % (command, mode, err[-4000:]))
        return json.loads(out.splitlines()[-1])

    def all_modes(self, name: str) -> List[Dict[str, Any]]:
        config = self.write("app.yaml", """\
            applications:
            - name: default
              route_prefix: /
              import_path: %s:app
              rserve: {app_dir: apps}
            """ % name)
        s = self.serve(config)
        address = "http://127.0.0.1:%d" % s.dashboard
        run = self.program(name, "attach", RSERVE, "python", PORT=str(s.port),
                           RAY_DASHBOARD_ADDRESS=address)
        self.assertEqual(s.stop(), 0)
        script = self.program(name, "run", RSERVE, "python")
        packages = sysconfig.get_path("purelib")  # the wheel brings no framework
        wheel = self.program(name, "run", self.venv(), PYTHONPATH=packages)
        local = self.program(name, "local", RSERVE, "python")
        for mode in (run, script, wheel):
            for answer in mode["http"]:
                self.forget_pickling(answer)
        for other in (script, wheel):
            self.assertEqual(run["http"], other["http"])
        for other in (script, wheel, local):
            self.assertEqual(run["handle"], other["handle"])
        return [run, script, wheel]

    def forget_pickling(self, answer: List[Any]) -> None:
        """FastAPI's mark for "no example" is another object once pickled, under Ray Serve too."""
        if isinstance(answer[2], dict) and "openapi" in answer[2]:
            for operation in answer[2]["paths"]["/score"].values():
                for parameter in operation["parameters"]:
                    self.assertEqual(parameter.pop("example", {}), {})

    def test_standard_library(self) -> None:
        answers = self.all_modes("plain")[0]
        counted = {"the": 3, "cat": 2, "and": 1, "dog,": 1}
        want = {"counted": counted, "loud": "THE CAT AND THE DOG, THE CAT!",
                "lengths": [3, 3, 3, 3, 4, 3, 3]}
        self.assertEqual(answers["handle"],
                         [want, {"counted": {}, "loud": "!", "lengths": []}, [True, True]])
        self.assertEqual(answers["http"][0], [200, "application/json", want])
        self.assertEqual(answers["http"][1][2]["counted"], {"bcd": 1})
        self.assertEqual(answers["http"][2][0], 500)

    @unittest.skipUnless(has("fastapi", "pydantic", "numpy"), "FastAPI or numpy is not installed")
    def test_frameworks(self) -> None:
        modes = self.all_modes("modern")
        answers = modes[0]
        self.assertEqual([a[0] for a in answers["http"]],
                         [200, 200, 422, 422, 422, 200, 422, 200, 404])
        self.assertEqual(answers["http"][0][2], {"score": 3.0, "kind": "mean"})
        self.assertEqual(answers["http"][1][2], {"score": 14.0, "kind": "dot", "note": "n"})
        self.assertEqual(answers["http"][5][1:], ["text/plain; charset=utf-8", "0\n1\n2\n"])
        self.assertIn("/score", answers["http"][7][2]["paths"])
        self.assertEqual(answers["handle"][2:], ["float32", 100000, 9999900000.0])
        for mode in modes:
            pss = mode["pss"]
            self.assertEqual(len(pss), 4, pss)
            # Each has 300 MB of one import in it. Only one copy of that is there.
            self.assertLess(sum(pss.values()), 500 << 20, pss)


class Framework(ServeTest):
    def application(self, name: str, *args: str) -> Server:
        return self.serve(self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              import_path: %s:app
              rserve: {app_dir: "%s"}
            """ % (name, PROGRAMS)), *args)


@unittest.skipUnless(has("openai", "fastapi"), "openai or FastAPI is not installed")
class OpenAI(Framework):
    """The official client, against a model behind an ingress."""

    def setUp(self) -> None:
        super().setUp()
        import openai
        self.server = self.application("chat")
        self.client = openai.OpenAI(
            base_url="http://127.0.0.1:%d/v1" % self.server.port, api_key="none", max_retries=0,
            timeout=30 * SLOW)
        self.addCleanup(self.client.close)

    def ask(self, text: str, stream: bool = False, **more: Any) -> Any:
        return self.client.chat.completions.create(
            model="echo-1", messages=[{"role": "user", "content": text}], stream=stream, **more)

    def text_of(self, stream: Any) -> str:
        return "".join(c.choices[0].delta.content or "" for c in stream)

    def given_up(self) -> int:
        return self.server.call("/facts").json()["given_up"]

    def test_whole_answers(self) -> None:
        import openai
        self.assertEqual([m.id for m in self.client.models.list()], ["echo-1"])
        answer = self.ask("to be or not to be", max_tokens=3)
        self.assertEqual(answer.choices[0].message.content, "to be or")
        self.assertEqual(answer.usage.completion_tokens, 3)
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="none", messages=[])
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.UnprocessableEntityError):
            self.client.chat.completions.create(model="echo-1", messages=[{"role": "user"}])
        with self.assertRaises(openai.InternalServerError):
            self.ask("now explode")

    def test_streams(self) -> None:
        stream = self.ask("to be or not", stream=True)
        chunks = list(stream)
        self.assertEqual([c.choices[0].delta.content for c in chunks],
                         ["", "to ", "be ", "or ", "not ", None])
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")
        with ThreadPoolExecutor(20) as pool:
            texts = ["w%d " % i * 200 for i in range(20)]
            answers = pool.map(lambda t: self.text_of(self.ask(t, stream=True)), texts)
            self.assertEqual(list(answers), texts)
        self.assertEqual(self.given_up(), 0)

    def test_asynchronous_client(self) -> None:
        import openai

        async def ask() -> str:
            async with openai.AsyncOpenAI(base_url=self.client.base_url, api_key="none") as client:
                stream = await client.chat.completions.create(
                    model="echo-1", messages=[{"role": "user", "content": "a b"}], stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream])
        self.assertEqual(asyncio.run(ask()), "a b ")

    def test_words_come_as_they_are_said(self) -> None:
        """And a client that reads no further ends the model's generator."""
        for stops in range(1, 4):
            stream = self.ask("first second wait third", stream=True)
            read = [next(stream).choices[0].delta.content for _ in range(3)]
            self.assertEqual(read, ["", "first ", "second "])
            stream.close()
            wait_until("the generator is given up", lambda: self.given_up() == stops)
        self.assertEqual(self.text_of(self.ask("as before", stream=True)), "as before ")

    def test_a_model_that_fails_half_way(self) -> None:
        """The stream breaks off: nobody takes it for a whole answer."""
        import openai
        for last in ("explode", "wait"):
            stream = self.ask("one two " + last, stream=True)
            read = [next(stream).choices[0].delta.content for _ in range(3)]
            self.assertEqual(read[1:], ["one ", "two "])
            if last == "wait":
                os.kill(self.server.call("/facts").json()["pid"], signal.SIGKILL)
            with self.assertRaises(openai.APIConnectionError):
                next(stream)
        wait_until("a new replica answers", lambda: self.server.app("app")["status"] == "RUNNING"
                   and self.server.call("/facts").status == 200)
        self.assertEqual(self.text_of(self.ask("as before", stream=True)), "as before ")


class Given(ServeTest):
    def test_devices_and_threads_of_a_replica(self) -> None:
        """Forked replicas have their own GPUs, and libraries know how many CPUs are theirs."""
        s = self.serve_code("""\
            import asyncio, os
            import ray
            from ray import serve

            def facts():
                return [os.environ.get("CUDA_VISIBLE_DEVICES"), ray.get_gpu_ids(),
                        os.environ.get("OMP_NUM_THREADS")]

            @serve.deployment(num_replicas=2, max_ongoing_requests=1,
                              ray_actor_options={"num_cpus": 3, "num_gpus": 1})
            class Worker:
                async def facts(self):
                    await asyncio.sleep(0.05)  # so that the other one is called too
                    return facts()

            @serve.deployment(ray_actor_options={"num_cpus": 0.5})
            class Front:
                def __init__(self, worker):
                    self.worker = worker
                async def __call__(self, request):
                    calls = [self.worker.facts.remote() for _ in range(8)]
                    return [facts(), *await asyncio.gather(*calls)]

            app = Front.bind(Worker.bind())
            """, "--num-cpus", "8", "--num-gpus", "4")
        front, *workers = s.call("/").json()
        self.assertEqual(front[2], "1")
        self.assertEqual({w[0] for w in workers}, {"0", "1"})
        self.assertEqual({(w[0], str(w[1][0])) for w in workers}, {("0", "0"), ("1", "1")})
        self.assertEqual({w[2] for w in workers}, {"3"})


class Web(Framework):
    @unittest.skipUnless(has("starlette"), "Starlette is not installed")
    def test_starlette(self) -> None:
        s = self.application("pages")
        first, second = s.call("/"), s.call("/")
        self.assertEqual(first.json(), {"visits": 1, "style": "/static/style.css"})
        self.assertEqual(second.json()["visits"], 2)
        self.assertEqual(first.headers["x-stamp"], "seven")
        self.assertEqual(s.call("/closed/door").status, 403)

        style = s.call("/static/style.css")
        self.assertEqual((style.status, style.body), (200, b"body { margin: 0 }\n"))
        self.assertEqual(style.headers["content-type"], "text/css; charset=utf-8")
        seen = s.call("/static/style.css", headers={"if-none-match": style.headers["etag"]})
        self.assertEqual((seen.status, seen.body), (304, b""))
        part = s.call("/static/style.css", headers={"range": "bytes=5-9"})
        self.assertEqual((part.status, part.body), (206, b"{ mar"))
        self.assertEqual(part.headers["content-range"], "bytes 5-9/19")
        self.assertEqual(s.call("/static/../pages.py").status, 404)
        self.assertEqual(s.call("/static/none.css").status, 404)
        head = s.call("/static/style.css", method="HEAD")
        self.assertEqual((head.status, head.body, head.headers["content-length"]), (200, b"", "19"))
        self.assertIn("x.css", s.call("/file").headers["content-disposition"])

        self.assertEqual(s.call("/later", body=b"").json(), {"done": 0})
        wait_until("the tasks are done", lambda: s.call("/done").json() == [0, 1, 2])
        self.assertEqual(s.call("/later").status, 405)
        self.assertEqual(s.call("/fails-later").text, "sent")
        packed = s.call("/text", headers={"accept-encoding": "gzip"})
        self.assertEqual(packed.headers["content-encoding"], "gzip")
        self.assertEqual(gzip.decompress(packed.body), b"long " * 2000)
        broken = s.call("/broken")
        self.assertEqual((broken.status, broken.json()), (410, {"absent": "nothing there"}))
        moved = s.call("/moved")
        self.assertEqual((moved.status, moved.headers["location"]),
                         (307, "http://127.0.0.1:%d/" % s.port))

    def multipart(self, *files: Tuple[str, bytes]) -> Tuple[bytes, Dict[str, str]]:
        parts = [b"--edge\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nthe title\r\n"]
        for name, data in files:
            parts.append(b"--edge\r\nContent-Disposition: form-data; name=\"files\"; filename=\""
                         + name.encode() + b"\"\r\nContent-Type: image/x\r\n\r\n" + data + b"\r\n")
        return (b"".join(parts) + b"--edge--\r\n",
                {"content-type": "multipart/form-data; boundary=edge"})

    @unittest.skipUnless(has("fastapi", "python_multipart", "a2wsgi"),
                         "FastAPI, python-multipart or a2wsgi is not installed")
    def test_fastapi(self) -> None:
        s = self.application("desk")
        large = os.urandom(8 << 20)
        body, headers = self.multipart(("a.bin", b"small"), ("b \u00fc.bin", large))
        answer = s.call("/upload", body=body, headers=headers)
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json(), {"title": "the title", "files": [
            ["a.bin", "image/x", 5, hashlib.sha256(b"small").hexdigest()],
            ["b \u00fc.bin", "image/x", len(large), hashlib.sha256(large).hexdigest()]]})
        headers["content-type"] = "multipart/form-data"
        self.assertEqual(s.call("/upload", body=body, headers=headers).status, 400)

        answer = s.call("/stream?parts=300")
        self.assertEqual(answer.headers["x-parts"], "300")
        self.assertEqual(answer.text, "".join(str(i) * 1000 for i in range(300)))

        self.assertEqual(s.call("/items/1?q=x").json(), {"item": "one", "q": "x"})
        self.assertEqual(s.call("/v2/items/3").json(), {"item": None, "q": "none"})
        self.assertEqual(s.call("/items/x").status, 422)
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = s.call("/items/note", body=b"text=hello+there", headers=form)
        self.assertEqual((answer.status, answer.json()), (202, {"notes": 0}))
        wait_until("the task is done", lambda: s.call("/notes").json() == ["hello there"])
        self.assertEqual(s.call("/closing").json(), "resource")
        wait_until("the resource is closed",
                   lambda: s.call("/notes").json()[1:] == ["opened", "closed"])

        asked = {"origin": "https://example.org", "access-control-request-method": "POST"}
        allowed = s.call("/upload", method="OPTIONS", headers=asked)
        self.assertEqual(allowed.headers["access-control-allow-origin"], "https://example.org")

        old = s.call("/old/page?x=1", body=b"abc", headers={"content-type": "text/plain"})
        self.assertEqual((old.status, old.headers["x-old"]), (201, "yes"))
        self.assertEqual(old.text, "POST /old /page x=1 cba")


if __name__ == "__main__":
    main()
