"""`ray.serve.dag`: what is left of the deployment graphs of Ray 2.0 to 2.8."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["InputNode"]


class InputNode:
    """Stood for the request in a deployment graph; such graphs were removed from Ray Serve."""

    def __init__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            "Deployment graphs made with InputNode are no longer supported: bind deployments to "
            "one another and call them through their handles, `await self.other.remote(value)`."
        )
