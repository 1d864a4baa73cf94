"""A model that says what it was told, behind the interface that OpenAI's clients speak."""

import asyncio
import json
import os
import time
from typing import List, Optional

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from ray import serve

api = FastAPI()
MODEL = "echo-1"


class Message(BaseModel):
    role: str
    content: str


class Question(BaseModel):
    model: str
    messages: List[Message]
    stream: bool = False
    max_tokens: Optional[int] = None


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Echo:
    """Words of the last message; "wait" takes a minute, "explode" fails."""

    def __init__(self):
        self.said = 0
        self.given_up = 0

    async def generate(self, messages, limit):
        words = messages[-1]["content"].split()
        try:
            for word in words[:limit]:
                if word == "wait":
                    await asyncio.sleep(60)
                if word == "explode":
                    raise ValueError("the model exploded")
                self.said += 1
                yield word
        except (asyncio.CancelledError, GeneratorExit):
            self.given_up += 1
            raise

    async def facts(self):
        return {"pid": os.getpid(), "given_up": self.given_up}


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Chat:
    def __init__(self, model):
        self.model = model

    @api.get("/v1/models")
    async def models(self):
        return {"object": "list", "data": [
            {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]}

    @api.get("/facts")
    async def facts(self):
        return await self.model.facts.remote()

    @api.post("/v1/chat/completions")
    async def complete(self, question: Question):
        if question.model != MODEL:
            return JSONResponse({"error": {"message": f"no model {question.model}",
                                           "type": "invalid_request_error", "param": "model",
                                           "code": "model_not_found"}}, 404)
        words = self.model.options(stream=True).generate.remote(
            [m.model_dump() for m in question.messages], question.max_tokens)
        if question.stream:
            return StreamingResponse(self.events(words), media_type="text/event-stream")
        said = [w async for w in words]
        return {**self.head("chat.completion"), "choices": [
            {"index": 0, "finish_reason": "stop",
             "message": {"role": "assistant", "content": " ".join(said)}}],
            "usage": {"prompt_tokens": 0, "completion_tokens": len(said),
                      "total_tokens": len(said)}}

    def head(self, kind):
        return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": MODEL}

    async def events(self, words):
        def event(delta, reason=None):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {**self.head("chat.completion.chunk"), "choices": [choice]}
            return f"data: {json.dumps(chunk)}\n\n"

        yield event({"role": "assistant", "content": ""})
        async for word in words:
            yield event({"content": word + " "})
        yield event({}, "stop")
        yield "data: [DONE]\n\n"


app = Chat.bind(Echo.bind())
