"""A Python ingress that calls a stage in C and one that is a plain HTTP server."""

from typing import Any, Dict

from ray import serve
from starlette.requests import Request


@serve.deployment
class Mixed:
    """Sends the body through the C stage, and fetches the menu from the file server."""

    def __init__(self) -> None:
        self.echo = serve.get_deployment_handle("Echo")
        self.files = serve.get_deployment_handle("Files")

    async def __call__(self, request: Request) -> Dict[str, Any]:
        echoed = await self.echo.remote(await request.body())
        menu = await self.files.get.remote("/menu.txt")
        return {"echo": bytes(echoed).decode(), "menu": bytes(menu).decode().splitlines()}


app = Mixed.bind()
