"""FastAPI: uploads, streams, routers, dependencies and overrides of them, forms, a WSGI mount."""

import hashlib
from typing import Annotated, List

from a2wsgi import WSGIMiddleware
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, Form, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from ray import serve

api = FastAPI()
api.add_middleware(CORSMiddleware, allow_origins=["https://example.org"], allow_methods=["*"])
notes: List[str] = []


def database():
    raise RuntimeError("there is no database here")


def closing():
    notes.append("opened")
    yield "resource"
    notes.append("closed")


router = APIRouter(prefix="/items", tags=["items"])


@router.get("/{item}")
async def item(item: int, base: Annotated[dict, Depends(database)], q: str = "none"):
    return {"item": base.get(item), "q": q}


@router.post("/note", status_code=202)
def note(text: Annotated[str, Form()], tasks: BackgroundTasks):
    tasks.add_task(notes.append, text)
    return {"notes": len(notes)}


api.include_router(router)
api.include_router(router, prefix="/v2")
api.dependency_overrides[database] = lambda: {1: "one", 2: "two"}


def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("201 Created", [("content-type", "text/plain"), ("x-old", "yes")])
    yield f"{environ['REQUEST_METHOD']} {environ['SCRIPT_NAME']} {environ['PATH_INFO']} ".encode()
    yield f"{environ['QUERY_STRING']} ".encode()
    yield body[::-1]


api.mount("/old", WSGIMiddleware(wsgi))


@serve.deployment(max_ongoing_requests=20, ray_actor_options={"num_cpus": 0})
class Hasher:
    def digest(self, data):
        return hashlib.sha256(data).hexdigest()


@serve.deployment(max_ongoing_requests=20, ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Desk:
    def __init__(self, hasher):
        self.hasher = hasher

    @api.post("/upload")
    async def upload(
        self, files: Annotated[List[UploadFile], File()], title: Annotated[str, Form()]
    ):
        found = []
        for file in files:
            data = await file.read()
            found.append([file.filename, file.content_type, len(data),
                          await self.hasher.digest.remote(data)])
        return {"title": title, "files": found}

    @api.get("/stream")
    async def stream(self, parts: int = 10):
        def text():
            for i in range(parts):
                yield str(i) * 1000

        return StreamingResponse(text(), media_type="text/plain", headers={"x-parts": str(parts)})

    @api.get("/closing")
    async def closing(self, resource: Annotated[str, Depends(closing)]):
        return resource

    @api.get("/notes")
    async def notes(self):
        return notes


app = Desk.bind(Hasher.bind())
