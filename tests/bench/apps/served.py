"""What the benchmark serves besides the rag sample: a no-op, two hops, a stream."""

from typing import AsyncIterator

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import StreamingResponse


@serve.deployment
class Noop:
    async def __call__(self, request: Request) -> str:
        return "ok"


@serve.deployment
class Echo:
    async def __call__(self, body: bytes) -> bytes:
        return body


@serve.deployment
class Front:
    def __init__(self, echo: DeploymentHandle) -> None:
        self.echo = echo

    async def __call__(self, request: Request) -> bytes:
        return await self.echo.remote(await request.body())


@serve.deployment
class Stream:
    async def chunks(self) -> AsyncIterator[str]:
        for i in range(50):
            yield "data: token %02d\n\n" % i

    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self.chunks(), media_type="text/event-stream")


noop = Noop.bind()
echo = Front.bind(Echo.bind())
stream = Stream.bind()
