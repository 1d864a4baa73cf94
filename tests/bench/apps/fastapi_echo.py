"""Two hops of which the first is FastAPI's; apps/asgi.py has the same in one process."""

from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve.handle import DeploymentHandle

from served import Echo

api = FastAPI()


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(api)
class Front:
    def __init__(self, echo: DeploymentHandle) -> None:
        self.echo = echo

    @api.post("/")
    async def post(self, request: Request) -> Response:
        return Response(await self.echo.remote(await request.body()))


app = Front.bind(Echo.options(max_ongoing_requests=100,
                              ray_actor_options={"num_cpus": 0.1}).bind())
