"""A program against the library's types: tests/lint/check_types.py checks it with mypy --strict."""

from __future__ import annotations

from typing import Any, AsyncIterator, Dict, List, Optional

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig
from ray.serve.exceptions import BackPressureError
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
from ray.serve.metrics import Counter
from ray.serve.schema import (
    CeleryAdapterConfig,
    LoggingConfig,
    ServeDeploySchema,
    ServeStatus,
    TaskProcessorConfig,
)
from ray.serve.task_consumer import task_consumer, task_handler


class Model:
    def __init__(self, path: str) -> None:
        self.path = path
        self.served = Counter("served", description="Requests.", tag_keys=("kind",))

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.1)
    async def many(self, items: List[int]) -> List[int]:
        return [i + 1 for i in items]

    @serve.multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> str:
        return model_id

    async def __call__(self, item: int) -> int:
        self.served.inc(1, {"kind": serve.get_multiplexed_model_id()})
        result: int = await self.many(item)
        return result


class Front:
    def __init__(self, model: DeploymentHandle[Any]) -> None:
        self.model = model
        context = serve.get_replica_context()
        self.name: str = context.deployment
        self.rank: int = context.rank.rank

    async def __call__(self, item: int) -> Optional[int]:
        response: DeploymentResponse[int] = self.model.remote(item)
        try:
            return await response
        except BackPressureError as e:
            print(e.message, e.retry_after_s)
            return None

    async def stream(self, n: int) -> AsyncIterator[int]:
        items: DeploymentResponseGenerator[int] = self.model.options(stream=True).remote(n)
        async for item in items:
            yield item

    async def over_grpc(self, items: gRPCInputStream[bytes], context: RayServegRPCContext) -> int:
        context.set_details(context.peer())
        return sum([len(item) async for item in items])


@serve.deployment
def echo(text: str) -> str:
    return text


inner: Deployment = serve.deployment(num_replicas=2, max_queued_requests=10)(Model)
front: Deployment = serve.deployment(
    autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=3, upscale_delay_s=1.5),
    logging_config=LoggingConfig(log_level="DEBUG"),
    request_router_config=RequestRouterConfig(initial_backoff_s=0.1),
)(Front)
app: Application = front.options(name="Front2").bind(inner.bind("a/path"))
text: Application = echo.bind()

config = TaskProcessorConfig(
    queue_name="q",
    adapter_config=CeleryAdapterConfig(broker_url="redis://a", backend_url="redis://b"),
)


@task_consumer(task_processor_config=config)
class Worker:
    @task_handler(name="resize")
    def resize(self, path: str) -> None:
        print(path)


def main() -> None:
    serve.start(http_options=HTTPOptions(port=0), proxy_location="HeadOnly")
    handle = serve.run(app, name="x", route_prefix="/x")
    print(handle.remote(1).result(timeout_s=1.0))
    status: ServeStatus = serve.status()
    for name, application in status.applications.items():
        print(name, application.status.value)
    file = ServeDeploySchema.model_validate({"applications": []})
    dumped: Dict[str, Any] = file.model_dump(exclude_unset=True)
    print(dumped, [a.name for a in file.applications])
    serve.delete("x")
    serve.shutdown()


if __name__ == "__main__":
    main()
