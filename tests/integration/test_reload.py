#!/usr/bin/env python3
"""`rserve run --reload`: what an editor, a tool or a mistake does to the files of what runs."""

import os
import shutil
import signal

from harness import Load, Server, ServeTest, main, wait_until

MAIN = """\
    from ray import serve
    from parts.words import word

    @serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
    class A:
        def __call__(self, request):
            return word()

    app = A.bind()
    """
WORDS = "def word():\n    return %r\n"


class Reload(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("served.py", MAIN)
        self.write("parts/__init__.py", "")
        self.write("parts/words.py", WORDS % "one")

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def started(self) -> Server:
        self.write_file()
        return self.serve(self.path("app.yaml"), "--reload")

    def write_file(self, deployments: str = "") -> None:
        self.write("app.yaml.new", "applications:\n- name: app\n  route_prefix: /\n"
                   "  import_path: served:app\n" + deployments)
        os.rename(self.path("app.yaml.new"), self.path("app.yaml"))

    def answers(self, s: Server, word: str) -> None:
        wait_until("it answers %s" % word, lambda: s.call("/").text == word, 30)

    def times(self, s: Server) -> int:
        return s.output().count("deploying anew")

    def test_editors(self) -> None:
        s = self.started()
        self.answers(s, "one")
        # in place
        self.write("parts/words.py", WORDS % "two")
        self.answers(s, "two")
        # a new file over the old one, with a copy of the old one beside it
        os.rename(self.path("parts/words.py"), self.path("parts/words.py~"))
        self.write("parts/4913", "")
        os.remove(self.path("parts/4913"))
        self.write("parts/words.py", WORDS % "three")
        os.remove(self.path("parts/words.py~"))
        self.answers(s, "three")
        self.write("parts/.words.py.swp", WORDS % "four")
        os.rename(self.path("parts/.words.py.swp"), self.path("parts/words.py"))
        self.answers(s, "four")
        # a link in its place
        self.write("elsewhere/words.txt", WORDS % "five")
        os.remove(self.path("parts/words.py"))
        os.symlink(self.path("elsewhere/words.txt"), self.path("parts/words.py"))
        self.answers(s, "five")
        # what is none of its files is no reason
        before = self.times(s)
        for name in ("notes.txt", ".git/index.py", "parts/__pycache__/words.py", "parts/.#x.py"):
            self.write(name, "nothing")
        self.write("parts/words2.py", WORDS % "six")
        wait_until("that file counts", lambda: self.times(s) == before + 1)
        s.wait_apps()
        self.assertEqual(self.times(s), before + 1)
        self.assertIn("words2.py has changed: deploying anew", s.output())

    def test_new_files(self) -> None:
        """A package that comes later, made elsewhere or file by file, is watched like others."""
        s = self.started()
        self.write("more/deep/__init__.py", "")
        self.write("more/deep/words.py", WORDS % "deep")
        self.write("served.py", MAIN.replace("parts.words", "more.deep.words"))
        self.answers(s, "deep")
        self.write("more/deep/words.py", WORDS % "deeper")
        self.answers(s, "deeper")
        self.write("tmp.txt/made/words.py", WORDS % "made")
        shutil.move(self.path("tmp.txt/made"), self.path("moved"))
        self.write("served.py", MAIN.replace("parts.words", "moved.words"))
        self.answers(s, "made")
        self.write("moved/words.py", WORDS % "moved")
        self.answers(s, "moved")

    def test_mistakes(self) -> None:
        """What cannot be imported leaves what runs, and is said; the next version is taken."""
        s = self.started()
        load = Load(s.port)
        load.wait(10)
        pids = s.pids("app", "A")
        self.write("parts/words.py", "def word(:\n")
        s.wait_output("SyntaxError")
        s.wait_apps("DEPLOY_FAILED")
        load.wait(20)
        self.assertEqual(s.pids("app", "A"), pids)
        os.remove(self.path("parts/words.py"))
        s.wait_output("ModuleNotFoundError")
        self.assertEqual(s.call("/").text, "one")
        self.write("parts/words.py", WORDS % "two")
        self.answers(s, "two")
        s.wait_apps()
        # the configuration likewise
        self.write_file("  deployments: [{name: A, num_replicas: many}]\n")
        s.wait_output("num_replicas")
        self.assertEqual(s.call("/").text, "two")
        self.assertEqual(set(load.stop()), {200})

    def test_a_module_that_is_broken_at_first(self) -> None:
        """An import path: it waits for a version that can be imported."""
        self.write("parts/words.py", "def word(:\n")
        s = self.start("served:app", "--reload", "--app-dir", self.folder)
        s.wait_apps("DEPLOY_FAILED")
        self.write("parts/words.py", WORDS % "one")
        self.answers(s, "one")
        self.write("parts/words.py", WORDS % "two")
        self.answers(s, "two")
        s.wait_apps()

    def test_the_file_alone(self) -> None:
        """What can change in place does; the modules are not imported again."""
        s = self.started()
        pids = s.pids("app", "A")
        self.write_file("  deployments: [{name: A, num_replicas: 2}]\n")
        wait_until("two replicas", lambda: len(s.pids("app", "A")) == 2)
        self.assertTrue(pids < s.pids("app", "A"))
        self.write("parts/words.py", WORDS % "two")
        self.answers(s, "two")
        s.wait_apps()
        wait_until("only new ones", lambda: len(s.pids("app", "A")) == 2 and
                   not pids & s.pids("app", "A"))
        pids = s.pids("app", "A")
        self.write_file("  deployments: [{name: A, num_replicas: 1}]\n")
        wait_until("one of them", lambda: len(s.pids("app", "A")) == 1)
        self.assertTrue(s.pids("app", "A") < pids)
        self.assertEqual(s.call("/").text, "two")

    def test_a_burst(self) -> None:
        """Many files at once, as of another branch, are one deploy; a replica dies meanwhile."""
        s = self.started()
        before = self.times(s)
        for i in range(500):
            self.write("generated/m%d.py" % i, "X = %d\n" % i)
        self.write("parts/words.py", WORDS % "two")
        for pid in s.pids("app", "A"):
            os.kill(pid, signal.SIGKILL)
        wait_until("it deploys", lambda: self.times(s) > before)
        wait_until("it answers", lambda: s.call("/").status == 200)
        self.answers(s, "two")
        s.wait_apps()
        self.assertLessEqual(self.times(s), before + 3)  # a slow machine may pause in between


if __name__ == "__main__":
    main()
