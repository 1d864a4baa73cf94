"""Gradio applications as deployments. Needs gradio."""

from __future__ import annotations

from typing import Any, Callable

from ray.serve.api import deployment, get_replica_context, ingress

try:
    import fastapi  # comes with gradio
    import gradio
except ImportError as e:
    raise ImportError(
        "ray.serve.gradio_integrations needs gradio, which is not installed here: "
        "`pip install gradio`, or add it to the `pip` list of the application's runtime_env."
    ) from e

__all__ = ["GradioIngress", "GradioServer"]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application of the Gradio interface that this replica has built."""
    servable: Any = get_replica_context().servable_object
    await servable._gradio_app(scope, receive, send)


@ingress(_app)
class GradioIngress:
    """Serves the interface that `builder` returns; the base for deployments of one's own.

    `builder` takes nothing and gives a `gradio.Blocks` (or Interface). It is called on the replica,
    since interfaces cannot be pickled.
    """

    def __init__(self, builder: Callable[[], Any]) -> None:
        # Mounted: an application of create_app() alone is not one that gradio 5 and 6 can show.
        site = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._gradio_app = gradio.mount_gradio_app(site, builder(), path="")


#: `GradioServer.bind(builder)` is an application.
GradioServer = deployment(GradioIngress)
