#!/usr/bin/env python3
"""rserve run --check, and the forms in which an application is named."""

import os
import re

from harness import APPS, C_ECHO, ServeTest, main, rserve

GRAPH = """\
    from ray import serve

    @serve.deployment(num_replicas=3, max_ongoing_requests=7)
    class Leaf:
        def __call__(self, x):
            return x

    @serve.deployment
    class Root:
        def __init__(self, leaf, word="none"):
            self.leaf, self.word = leaf, word

        async def __call__(self, request):
            return self.word

    app = Root.bind(Leaf.bind())

    def build(args):
        return Root.bind(Leaf.options(num_replicas=int(args.get("n", 1))).bind(), args["word"])
    """


class Check(ServeTest):
    def check(self, *args: str, code: int = 0) -> str:
        r = rserve("run", "--check", *args, cwd=self.folder)
        self.assertEqual(r.returncode, code, r.stdout + r.stderr)
        return r.stdout + r.stderr

    def test_prints_values_and_where_they_came_from(self) -> None:
        self.write_app(GRAPH, deployments="- {name: Leaf, num_replicas: 2}\n")
        text = self.check("app.yaml")
        self.assertRegex(text, r"num_replicas\W+2\b.*\bfile\b")
        self.assertRegex(text, r"max_ongoing_requests\W+7\b.*\bcode\b")
        self.assertRegex(text, r"max_ongoing_requests\W+5\b.*\bdefault\b")
        self.assertRegex(text, r"(?s)Root.*Leaf", "the tree, from the ingress down")

    def test_samples(self) -> None:
        for name in sorted(os.listdir(APPS)):
            if name in ("c-stage", "mixed") and not C_ECHO:
                continue
            with self.subTest(name=name):
                self.check(os.path.join(APPS, name, "app.yaml"), "--no-import")

    def test_all_errors_at_once(self) -> None:
        self.write("app.yaml", """\
            applications:
            - name: a
              import_path: served
              route_prefx: /
              deployments:
              - name: x
                num_replicas: two
                graceful_shutdown_timeout_s: -1
            """)
        text = self.check("app.yaml", "--no-import", code=2)
        self.assertRegex(text, r"(?m)^app\.yaml:3:16: applications\[0\]\.import_path: ")
        self.assertRegex(text, r'(?m)^app\.yaml:7:19: applications\[0\]\.deployments\[0\]\.'
                               r'num_replicas: expected an integer >= 1 or "auto", got "two"$')
        self.assertRegex(text, r"(?m)^app\.yaml:8:\d+: .*graceful_shutdown_timeout_s: ")
        self.assertRegex(text, r'(?m)^app\.yaml:4:\d+: warning: .*route_prefx.*'
                               r'did you mean "route_prefix"\?$')

    def test_json_file(self) -> None:
        self.write_app(GRAPH)
        self.write("app.json", '{"applications": [{"name": "app", "import_path": "served:app"}]}')
        self.check("app.json")

    def test_module_that_fails(self) -> None:
        self.write_app("raise ValueError('on purpose')\n")
        text = self.check("app.yaml", code=2)
        self.assertIn("ValueError: on purpose", text)
        self.assertIn("served.py", text)
        self.check("app.yaml", "--no-import")

    def test_unknown_deployment(self) -> None:
        self.write_app(GRAPH, deployments="- {name: Leef}\n")
        self.assertIn("Leef", self.check("app.yaml", code=2))

    def test_anchors_and_merge_keys(self) -> None:
        self.write_app(GRAPH)
        self.write("app.yaml", """\
            common: &common
              max_ongoing_requests: 11
            applications:
            - name: app
              import_path: served:app
              deployments:
              - {<<: *common, name: Leaf}
              - {<<: *common, name: Root}
            """)
        text = self.check("app.yaml")
        self.assertEqual(len(re.findall(r"max_ongoing_requests\W+11\b", text)), 2, text)

    def test_legacy_name_warns(self) -> None:
        self.write_app(GRAPH)
        self.write("app.yaml", """\
            applications:
            - name: app
              import_path: served:app
              deployments:
              - {name: Leaf, max_concurrent_queries: 9}
            """)
        text = self.check("app.yaml")
        self.assertRegex(text, r"(?m)^app\.yaml:5:\d+: warning: .*max_concurrent_queries")
        self.assertRegex(text, r"max_ongoing_requests\W+9\b")

    def test_starts_nothing(self) -> None:
        self.write_app("open(__file__ + '.imported', 'a').close()\n"
                       "from ray import serve\n\n"
                       "@serve.deployment\nclass A:\n"
                       "    def __init__(self):\n"
                       "        open(__file__ + '.constructed', 'a').close()\n\n"
                       "app = A.bind()\n")
        self.check("app.yaml")
        self.assertTrue(os.path.exists(os.path.join(self.folder, "served.py.imported")))
        self.assertFalse(os.path.exists(os.path.join(self.folder, "served.py.constructed")))


class Forms(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.write_app(GRAPH)

    def test_module_and_application(self) -> None:
        s = self.serve("served:app", "--num-cpus", "8", cwd=self.folder)
        self.assertEqual(s.call().text, "none")
        self.assertEqual(list(s.details()["applications"]), ["default"])

    def test_builder_with_arguments(self) -> None:
        s = self.serve("served:build", "word=hello", "n=2", "--num-cpus", "8", cwd=self.folder)
        self.assertEqual(s.call().text, "hello")
        self.assertEqual(len(s.pids("default", "Leaf")), 2)

    def test_name_route_and_app_dir(self) -> None:
        s = self.serve("served:app", "--app-dir", self.folder, "--name", "mine",
                       "--route-prefix", "/here", "--num-cpus", "8", cwd="/")
        self.assertEqual(s.call("/here").text, "none")
        self.assertEqual(s.call("/").status, 404)
        self.assertEqual(list(s.details()["applications"]), ["mine"])

    def test_file_from_another_folder(self) -> None:
        s = self.serve(os.path.join(self.folder, "app.yaml"), "--num-cpus", "8", cwd="/")
        self.assertEqual(s.call().text, "none")

    def test_custom_resources(self) -> None:
        self.write_app(GRAPH, deployments="""\
            - name: Leaf
              num_replicas: 2
              ray_actor_options: {num_cpus: 0, resources: {disk: 1}}
            """)
        s = self.serve("app.yaml", "--num-cpus", "1", "--resources", '{"disk": 2}',
                       cwd=self.folder)
        self.assertEqual(len(s.pids("app", "Leaf")), 2)


if __name__ == "__main__":
    main()
