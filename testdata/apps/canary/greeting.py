"""A deployment whose behaviour is changed by its environment, to try a canary with.

    rserve run app.yaml &          # 4 replicas
    # change GREETING in app.yaml (or FAIL to "0.3", or PAUSE_S to "0.5"), then
    rserve deploy --no-wait app.yaml
    rserve status --events -f
"""

import asyncio
import os
import random

from ray import serve
from starlette.requests import Request
from starlette.responses import PlainTextResponse


@serve.deployment
class Greeting:
    def __init__(self) -> None:
        self.text = os.environ.get("GREETING", "Hello")
        self.fail = float(os.environ.get("FAIL", "0"))
        self.pause = float(os.environ.get("PAUSE_S", "0.005"))

    async def __call__(self, request: Request) -> PlainTextResponse:
        await asyncio.sleep(self.pause)
        if random.random() < self.fail:
            return PlainTextResponse("out of order", status_code=500)
        return PlainTextResponse("%s, %s!" % (self.text, request.query_params.get("name", "world")))


app = Greeting.bind()
