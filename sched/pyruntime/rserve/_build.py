"""What `serve build` asks of the code: `python -m rserve._build APP_DIR IMPORT_PATH...`.

Imports each application and writes one JSON document to the descriptor in RSERVE_FD:
`{"applications": [{"import_path", "deployments": [{"name", ... the options that code set}]}]}`.
What the modules print goes where standard error goes. Exit status 1: the reason is on standard
error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List

from ray.serve.deployment import Application

from rserve import _graph
from rserve._errors import BuildError, one_line, user_traceback

#: Not options of a deployment in a configuration file.
_NOT_IN_FILES = ("version",)


def _describe(import_path: str, app_dir: str) -> Dict[str, Any]:
    value = _graph.import_object(import_path, app_dir)
    if not isinstance(value, Application):
        raise BuildError(
            "build",
            "TypeError",
            f"TypeError: expected '{import_path}' to be an Application made by Deployment.bind(), "
            f"but got: {type(value)}. Application builder functions cannot be built: their "
            "arguments go into the configuration file.",
        )
    try:
        graph = _graph.build("default", value)
    except BuildError:
        raise
    except BaseException as e:
        raise BuildError("build", type(e).__name__, one_line(e), user_traceback(e)) from None
    for warning in graph.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    deployments: List[Dict[str, Any]] = []
    for node in graph.describe()["deployments"]:
        options = {k: v for k, v in node["options"].items() if k not in _NOT_IN_FILES}
        deployments.append({"name": node["name"], **options})
    return {"import_path": import_path, "deployments": deployments}


def main(app_dir: str, import_paths: List[str]) -> int:
    _graph.add_app_dir(app_dir)
    try:
        found = {"applications": [_describe(path, app_dir) for path in import_paths]}
        data = json.dumps(found, allow_nan=False).encode()
    except BuildError as e:
        message = e.message(app="")
        sys.stderr.write(message.get("traceback") or "")
        print(message["error"], file=sys.stderr)
        return 1
    except (TypeError, ValueError) as e:
        print(f"an option cannot be written to a file: {one_line(e)}", file=sys.stderr)
        return 1
    with os.fdopen(int(os.environ["RSERVE_FD"]), "wb") as out:
        out.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
