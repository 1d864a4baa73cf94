"""The process of an application's autoscaling policies; `python -m rserve._policy_process`, or
forked by the zygote."""

from __future__ import annotations

import socket
from typing import Any, Dict, Optional

from rserve import _helper
from rserve import _wire as w


def _handlers(graph: Any, init: Dict[str, Any]) -> Dict[int, _helper.Handler]:
    from rserve._policy import Policies

    return {w.POLICY: Policies(graph, str(init.get("app") or "default")).decide}


def run(sock: socket.socket, graph: Optional[Any]) -> int:
    return _helper.serve(sock, graph, "policy", w.DECISION, _handlers)


if __name__ == "__main__":
    _helper.main(run)
