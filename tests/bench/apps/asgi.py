"""The same no-op, echo and stream for uvicorn, as FastAPI users write them."""

from typing import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

app = FastAPI()


@app.get("/noop", response_class=PlainTextResponse)
async def noop() -> str:
    return "ok"


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body())


async def chunks() -> AsyncIterator[str]:
    for i in range(50):
        yield "data: token %02d\n\n" % i


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(chunks(), media_type="text/event-stream")
