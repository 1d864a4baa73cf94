"""The process of an application's request routers; `python -m rserve._router_process`, or forked by
the zygote."""

from __future__ import annotations

import socket
from typing import Any, Dict, Optional

from rserve import _helper
from rserve import _wire as w


def _handlers(graph: Any, init: Dict[str, Any]) -> Dict[int, _helper.Handler]:
    from rserve._router import Routers

    return {w.CHOOSE: Routers(graph, str(init.get("app") or "default")).choose}


def run(sock: socket.socket, graph: Optional[Any]) -> int:
    return _helper.serve(sock, graph, "router", w.CHOSEN, _handlers)


if __name__ == "__main__":
    _helper.main(run)
