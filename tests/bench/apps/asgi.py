"""The same no-op and stream for uvicorn, as FastAPI users write them."""

from typing import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

app = FastAPI()


@app.get("/noop", response_class=PlainTextResponse)
async def noop() -> str:
    return "ok"


async def chunks() -> AsyncIterator[str]:
    for i in range(50):
        yield "data: token %02d\n\n" % i


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(chunks(), media_type="text/event-stream")
