"""An application of FastAPI, pydantic, numpy and a heavy import, and a program: see driver.py."""

import asyncio
import enum
from typing import Annotated, List, Optional

import heavy
import numpy as np
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, field_validator
from ray import serve

REPLICAS = 4

api = FastAPI(title="Scores", version="7")


class Kind(str, enum.Enum):
    mean = "mean"
    dot = "dot"


class Query(BaseModel):
    kind: Kind = Kind.mean
    numbers: List[float] = Field(min_length=1, max_length=1000)
    note: Optional[str] = None

    @field_validator("note")
    @classmethod
    def short(cls, value):
        if value is not None and len(value) > 10:
            raise ValueError("too long a note")
        return value


class Score(BaseModel):
    score: float
    kind: Kind
    note: Optional[str] = None
    token: Optional[str] = None


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0})
class Model:
    def score(self, query: Query) -> float:
        numbers = np.asarray(query.numbers)
        weights = heavy.weights[: len(numbers)]
        return float(numbers.mean() if query.kind.value == "mean" else numbers @ weights)

    def transform(self, array):
        return array * 2

    async def pss(self):
        await asyncio.sleep(0.05)  # so that each replica gets a call
        return heavy.replica_facts()


def token(x_token: Annotated[Optional[str], Header()] = None) -> Optional[str]:
    if x_token == "bad":
        raise HTTPException(401, "not with this token")
    return x_token


@serve.deployment(max_ongoing_requests=50, ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Scores:
    def __init__(self, model):
        self.model = model

    @api.post("/score", response_model=Score, response_model_exclude_none=True)
    async def score(self, query: Query, token: Annotated[Optional[str], Depends(token)] = None):
        value = await self.model.score.remote(query)
        return Score(score=value, kind=query.kind, note=query.note, token=token)

    @api.get("/count/{n}")
    async def count(self, n: int):
        async def numbers():
            for i in range(n):
                yield f"{i}\n"

        return StreamingResponse(numbers(), media_type="text/plain")

    async def twice(self, array):
        return await self.model.transform.remote(array)

    async def pss(self):
        facts = await asyncio.gather(*[self.model.pss.remote() for _ in range(8 * REPLICAS)])
        return dict(facts)


app = Scores.bind(Model.bind())


def ask(handle):
    answers = [
        handle.score.remote(Query(numbers=[1, 2, 6]), None).result().model_dump(mode="json"),
        handle.score.remote(Query(kind="dot", numbers=[5, 2, 6], note="n"), "t").result()
        .model_dump(mode="json"),
    ]
    array = handle.twice.remote(np.arange(100_000, dtype=np.float32)).result()
    return [*answers, str(array.dtype), array.shape[0], float(array.sum(dtype=float))]


REQUESTS = [
    ("POST", "/score", {"numbers": [1, 2, 6]}),
    ("POST", "/score", {"numbers": [1, 2, 6], "kind": "dot", "note": "n"}),
    ("POST", "/score", {"numbers": []}),
    ("POST", "/score", {"numbers": [1], "kind": "none"}),
    ("POST", "/score", {"numbers": [1], "note": "longer than ten"}),
    ("GET", "/count/3", None),
    ("GET", "/count/x", None),
    ("GET", "/openapi.json", None),
    ("GET", "/absent", None),
]

if __name__ == "__main__":
    from driver import drive

    drive(app, ask, REQUESTS)
