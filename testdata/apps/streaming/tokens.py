"""Streaming: tokens come through a handle one by one and leave as server-sent events."""

import asyncio
import json
from typing import AsyncIterator

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import StreamingResponse

WORDS = "one moment please while the answer is being written word by word".split()


@serve.deployment
class TokenModel:
    """Yields `count` tokens that depend on nothing but the prompt."""

    async def generate(self, prompt: str, count: int, delay: float) -> AsyncIterator[str]:
        start = sum(prompt.encode())
        for i in range(count):
            if delay:
                await asyncio.sleep(delay)
            yield WORDS[(start + i) % len(WORDS)]


@serve.deployment
class Chat:
    """GET /?prompt=...&count=50&delay=0.01"""

    def __init__(self, model: DeploymentHandle) -> None:
        self.model = model.options(stream=True)

    async def events(self, prompt: str, count: int, delay: float) -> AsyncIterator[str]:
        position = 0
        async for token in self.model.generate.remote(prompt, count, delay):
            yield "data: %s\n\n" % json.dumps({"position": position, "token": token})
            position += 1
        yield "data: [DONE]\n\n"

    def __call__(self, request: Request) -> StreamingResponse:
        asked = request.query_params
        events = self.events(asked.get("prompt", ""), int(asked.get("count", "20")),
                             float(asked.get("delay", "0.02")))
        return StreamingResponse(events, media_type="text/event-stream")


app = Chat.bind(TokenModel.bind())
