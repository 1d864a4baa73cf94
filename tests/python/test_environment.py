"""Environment variables of Ray Serve that the library heeds; docs/environment.md lists them."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import unittest
from typing import Any
from unittest import mock

import fakenode  # noqa: F401  (puts the library on sys.path)
from rserve import _deploy, _log, _schema


def environment(**values: str) -> Any:
    return mock.patch.dict(os.environ, {f"RAY_SERVE_{n}": v for n, v in values.items()})


class Log(unittest.TestCase):
    def tearDown(self) -> None:
        logger = logging.getLogger("ray.serve")
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True

    def said(self, **config: Any) -> str:
        with mock.patch("sys.stderr", io.StringIO()) as stderr:
            _log.configure("app", "D", "abc", config)
            logging.getLogger("ray.serve").info("hello")
            return stderr.getvalue()

    def test_encoding(self) -> None:
        self.assertIn("hello", self.said())
        with environment(LOG_ENCODING="JSON"):
            self.assertEqual(json.loads(self.said())["message"], "hello")
            self.assertEqual(_schema.LoggingConfig().encoding, "JSON")
            self.assertFalse(self.said(encoding="TEXT").startswith("{"))

    def test_not_to_stderr(self) -> None:
        with tempfile.TemporaryDirectory() as folder, environment(LOG_TO_STDERR="0"):
            self.assertIn("hello", self.said())  # there is no other place
            self.assertEqual(self.said(logs_dir=folder), "")
            self.tearDown()
            with open(os.path.join(folder, os.listdir(folder)[0]), encoding="utf-8") as f:
                self.assertIn("hello", f.read())


class Start(unittest.TestCase):
    def test_where_http_is_served(self) -> None:
        self.assertEqual(_deploy._http(None), {"host": "127.0.0.1"})
        with environment(DEFAULT_HTTP_HOST="0.0.0.0", HTTP_KEEP_ALIVE_TIMEOUT_S="7"):
            self.assertEqual(
                _deploy._http({"port": 1}),
                {"host": "0.0.0.0", "port": 1, "keep_alive_timeout_s": 7},
            )
            self.assertEqual(_deploy._http({"host": "::1"})["host"], "::1")
        with environment(HTTP_KEEP_ALIVE_TIMEOUT_S="soon"):
            self.assertNotIn("keep_alive_timeout_s", _deploy._http(None))


if __name__ == "__main__":
    unittest.main()
