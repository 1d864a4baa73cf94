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


async def fifty() -> AsyncIterator[str]:
    for i in range(50):
        yield "data: token %02d\n\n" % i


@serve.deployment
class Tokens:
    async def __call__(self) -> AsyncIterator[str]:
        async for chunk in fifty():
            yield chunk


@serve.deployment
class Stream:
    """From another deployment, item by item; /direct: made here."""

    def __init__(self, tokens: DeploymentHandle) -> None:
        self.tokens = tokens.options(stream=True)

    async def __call__(self, request: Request) -> StreamingResponse:
        direct = request.url.path.endswith("/direct")
        return StreamingResponse(fifty() if direct else self.tokens.remote(),
                                 media_type="text/event-stream")


noop = Noop.bind()
echo = Front.bind(Echo.bind())
stream = Stream.bind(Tokens.bind())
