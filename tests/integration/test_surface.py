#!/usr/bin/env python3
"""What code in a replica can ask and be: task consumers, contexts, options as models, traces."""

import json
import os
import signal

from harness import ServeTest, main, wait_until

CONSUMER = '''
import json, os
from ray import serve
from ray.serve.schema import TaskProcessorAdapter, TaskProcessorConfig, TaskResult
from ray.serve.task_consumer import task_consumer, task_handler

NOTES = os.environ["NOTES"]

class Folder(TaskProcessorAdapter):
    """Notes what it is asked to do; works on a task where it is put in."""
    def __init__(self, config):
        self.config, self.handlers = config, {}
    def note(self, *what):
        with open(NOTES, "a") as f:
            f.write(json.dumps([os.getpid(), *what]) + "\\n")
    def initialize(self, consumer_concurrency=5):
        self.note("initialize", consumer_concurrency)
    def register_task_handle(self, func, name=None):
        self.handlers[name] = func
    def enqueue_task_sync(self, task_name, args=None, kwargs=None, **options):
        return TaskResult(id="1", status="SUCCESS", result=self.handlers[task_name](*args))
    def get_task_status_sync(self, task_id):
        return TaskResult(id=task_id, status="PENDING", result=None)
    def start_consumer(self, **kwargs):
        self.note("start", sorted(self.handlers))
    def stop_consumer(self, timeout=10.0):
        self.note("stop")

config = TaskProcessorConfig(queue_name="q", adapter=Folder, adapter_config={})

@serve.deployment(max_ongoing_requests=3, health_check_period_s=0.5)
@task_consumer(task_processor_config=config)
class Consumer:
    def __init__(self, factor):
        self.factor = factor
    @task_handler
    def times(self, x):
        return self.factor * x
    def __call__(self, request):
        return self._adapter.enqueue_task_sync("times", [int(request.query_params["x"])]).result

app = Consumer.bind(3)
'''

ASKING = '''
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig
from ray.serve._private.common import ReplicaID

@serve.deployment(
    autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=2),
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=2),
    logging_config=LoggingConfig(log_level="DEBUG", encoding="JSON"),
)
class Asking:
    def __init__(self):
        c = serve.get_replica_context()
        self.early = [c.app_name, c.deployment, c.rank.rank]

    def __call__(self, request):
        c = serve.get_replica_context()
        return {
            "early": self.early,
            "id": [type(c.replica_id).__name__, c.replica_tag == c.replica_id.unique_id],
            "rank": [c.rank.rank, c.rank.node_rank, c.rank.local_rank],
            "rest": [c.world_size, c.gang_context, c.servable_object is self,
                     isinstance(c.replica_id, ReplicaID)],
            "trace": serve.get_trace_context(),
        }

app = Asking.bind()
'''

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Surface(ServeTest):
    def notes(self, path):
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def test_task_consumer(self) -> None:
        notes = os.path.join(self.folder, "notes")
        s = self.serve_code(CONSUMER, env={**os.environ, "NOTES": notes})
        self.assertEqual(s.call("/?x=5").json(), 15)
        (pid,) = s.pids("app", "Consumer")
        self.assertEqual(self.notes(notes), [[pid, "initialize", 3], [pid, "start", ["times"]]])
        # a consumer that dies is replaced by one that starts anew
        os.kill(pid, signal.SIGKILL)
        wait_until("another consumer", lambda: len(self.notes(notes)) == 4)
        self.assertEqual(s.call("/?x=2").json(), 6)
        (other,) = wait_until("it is told", lambda: s.pids("app", "Consumer") - {pid})
        # one that is told to go stops its consumer
        self.assertEqual(s.stop(), 0)
        self.assertEqual([n[1:] for n in self.notes(notes) if n[0] == other][-1], ["stop"])

    def test_contexts_and_models(self) -> None:
        s = self.serve_code(ASKING)
        facts = s.call("/", headers={"traceparent": TRACE}).json()
        self.assertEqual(facts["early"], ["app", "Asking", 0])
        self.assertEqual(facts["id"], ["ReplicaID", True])
        self.assertEqual(facts["rank"], [0, 0, 0])
        self.assertEqual(facts["rest"], [1, None, True, True])
        self.assertIn(TRACE[3:35], facts["trace"]["traceparent"])
        config = s.details()["applications"]["app"]["deployments"]["Asking"]["deployment_config"]
        self.assertEqual(config["autoscaling_config"]["max_replicas"], 2)
        self.assertEqual(config["backpressure_config"], {"status_code": 429, "retry_after_s": 2})


if __name__ == "__main__":
    main()
