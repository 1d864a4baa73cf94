#!/usr/bin/env python3
"""The command line: help, versions, exit statuses, completion."""

import os
import shutil
import subprocess
import unittest
from typing import List

RSERVE = os.environ["RSERVE"]


def run(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([RSERVE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, universal_newlines=True, timeout=20,
                          check=False, **kwargs)


def verbs(*group: str) -> List[str]:
    text = run(*group, "--help").stdout
    block = text[text.index("Verbs:\n"):].split("\n\n")[0].splitlines()[1:]
    return [line.split()[0] for line in block if line[:3].strip()]


class Help(unittest.TestCase):
    def test_lists_the_verbs(self) -> None:
        self.assertLessEqual({"run", "head", "worker", "status", "help", "version", "completion"},
                             set(verbs()))

    def test_help_of_each_verb(self) -> None:
        for verb in verbs():
            with self.subTest(verb=verb):
                long, short = run(verb, "--help"), run(verb, "-h")
                self.assertEqual((long.returncode, short.returncode), (0, 0))
                self.assertTrue(long.stdout.startswith("Usage: rserve %s" % verb))
                self.assertEqual(long.stdout, short.stdout)
                self.assertEqual(long.stdout, run("help", verb).stdout)
                self.assertEqual(long.stderr, "")

    def test_help_of_the_verbs_of_groups(self) -> None:
        for group in ("serve", "ray"):
            self.assertGreaterEqual(len(verbs(group)), 4)
            for verb in verbs(group):
                with self.subTest(group=group, verb=verb):
                    long = run(group, verb, "--help")
                    self.assertEqual((long.returncode, long.stderr), (0, ""))
                    usage = "Usage: %s %s [OPTIONS]" % (group, verb)
                    self.assertTrue(long.stdout.startswith(usage))
                    self.assertEqual(long.stdout, run("help", group, verb).stdout)

    def test_fits_80_columns(self) -> None:
        groups = [["help", group, verb] for group in ("serve", "ray") for verb in verbs(group)]
        for args in [["--help"], ["help", "config"]] + [["help", v] for v in verbs()] + groups:
            for line in run(*args).stdout.splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_the_page_of_the_configuration_is_todays(self) -> None:
        r = run("help", "config", "--markdown")
        page = os.path.join(os.environ["RSERVE_SOURCE"], "docs", "config.md")
        with open(page, encoding="utf-8") as f:
            self.assertEqual(f.read(), r.stdout, "write it again: rserve help config --markdown")

    def test_tells_the_exit_statuses(self) -> None:
        self.assertIn("Exit status: 0 done, 1 failed, 2 wrong usage", run("--help").stdout)

    def test_nothing_asked_is_usage(self) -> None:
        r = run()
        self.assertEqual((r.returncode, r.stdout), (2, ""))
        self.assertIn("Usage:", r.stderr)

    def test_full_disk_is_seen(self) -> None:
        with open("/dev/full", "w", encoding="utf-8") as full:
            r = subprocess.run([RSERVE, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"cannot write", r.stderr)


class Version(unittest.TestCase):
    def test_version(self) -> None:
        r = run("--version")
        self.assertEqual(r.returncode, 0)
        self.assertEqual(r.stdout, run("version").stdout)
        self.assertRegex(
            r.stdout, r"\Arserve \d+\.\d+\.\d+\ncommit: (unknown|[0-9a-f]{7,40}(-dirty)?)\n"
                      r"build: \w+.*\nlibraries: libmicrohttpd [\d.]+, jansson [\d.]+, "
                      r"libyaml [\d.]+, llhttp [\d.]+, "
                      r"c-ares [\d.]+, OpenSSL [\d.]+, SQLite [\d.]+\n\Z")


class Refusals(unittest.TestCase):
    cases = (
        (["rnu"], "did you mean 'run'?"),
        (["statsu"], "did you mean 'status'?"),
        (["--verison"], "did you mean '--version'?"),
        (["frobnicate"], "'rserve --help' lists the verbs"),
        (["help", "rum"], "did you mean 'run'?"),
        (["run", "--prot", "8000", "app.yaml"], "did you mean '--port'?"),
        (["run", "--port", "eighty", "app.yaml"], "got 'eighty'"),
        (["run", "--port", "70000", "app.yaml"], "65535"),
        (["run", "--port"], "got nothing"),
        (["run", "--resources", "[1]", "app.yaml"], "JSON object"),
        (["run", "-Z"], "unknown option '-Z'"),
        (["version", "now"], "unexpected argument 'now'"),
        (["help", "serve", "deplyo"], "did you mean 'deploy'?"),
        (["help", "run", "serve"], "'run' has no verbs of its own"),
        (["completion"], "got nothing"),
        (["completion", "csh"], "bash, zsh or fish"),
    )

    def test_one_line_and_exit_2(self) -> None:
        for args, text in self.cases:
            with self.subTest(args=args):
                r = run(*args)
                self.assertEqual((r.returncode, r.stdout), (2, ""))
                self.assertEqual(r.stderr.count("\n"), 1, r.stderr)
                self.assertIn(text, r.stderr)
                self.assertTrue(r.stderr.startswith("rserve"))


class Completion(unittest.TestCase):
    def test_covers_every_verb_and_option(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            script = run("completion", shell).stdout
            for verb in verbs():
                self.assertIn(verb, script)
                for word in run("help", verb).stdout.split():
                    if word.startswith("--") and word[2:].isalpha():
                        self.assertIn(word if shell != "fish" else "-l " + word[2:], script)

    def complete(self, *words: str, name: str = "rserve") -> List[str]:
        """What bash offers for the last word."""
        script = ('source <("$0" completion bash); COMP_WORDS=(' + name + ' "$@"); '
                  'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); compopt() { :; }; _rserve; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        r = subprocess.run(["bash", "-c", script, RSERVE, *words], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, universal_newlines=True, check=False,
                           cwd=os.environ["RSERVE_SOURCE"])
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        return r.stdout.split()

    def test_bash(self) -> None:
        self.assertEqual(self.complete("sta"), ["status"])
        self.assertIn("--version", self.complete("--"))
        self.assertEqual(self.complete("run", "--dashboard-p"), ["--dashboard-port"])
        self.assertEqual(self.complete("help", "comp"), ["completion"])
        self.assertIn("README.md", self.complete("run", "READ"))
        self.assertEqual(self.complete("run", "--port", "READ"), [])

    def test_bash_of_groups(self) -> None:
        self.assertEqual(self.complete("serve", "con"), ["config", "controller-health"])
        self.assertEqual(self.complete("serve", "shutdown", "--y"), ["--yes"])
        self.assertIn("README.md", self.complete("serve", "deploy", "READ"))
        self.assertEqual(self.complete("sta", name="/some/bin/ray"), ["start", "status"])
        self.assertEqual(self.complete("build", "--app", name="serve"), ["--app-dir"])
        self.assertEqual(self.complete("start", "--cgroup", name="ray"), [])  # it is refused

    def test_the_shells_accept_it(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            if not shutil.which(shell):
                continue
            script = run("completion", shell).stdout
            r = subprocess.run([shell, "-n"], input=script, universal_newlines=True, check=False,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(r.returncode, 0, r.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
