"""An autoscaling policy for task consumers: by the length of the queue at the broker, and the
requests that there are beside.

It needs no client library: Redis is asked in its own protocol, RabbitMQ over its management API.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
import urllib.parse
import urllib.request
from typing import Any, Dict, List, Optional, Tuple, Union

from ray.serve.config import AutoscalingContext

logger = logging.getLogger("ray.serve")

DEFAULT_ASYNC_INFERENCE_QUEUE_POLL_INTERVAL_S = 10.0
#: An answer of the broker that takes longer is none, in seconds.
_PATIENCE_S = 3.0
#: Celery spreads the priorities of a queue over these lists of Redis.
_REDIS_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
_ANSWER_MAX = 16 << 20


class AsyncInferenceAutoscalingPolicy:
    """As many replicas as keep each at `target_ongoing_requests`, tasks that wait at the broker
    included.

    `broker_url`: redis://, rediss://, or amqp:// with `rabbitmq_management_url` (by default
    http://guest:guest@HOST:15672/api/). The broker is asked every `poll_interval_s` seconds, in the
    background; while it does not answer, its last answer counts.
    """

    def __init__(
        self,
        broker_url: str,
        queue_name: str,
        rabbitmq_management_url: Optional[str] = None,
        poll_interval_s: float = DEFAULT_ASYNC_INFERENCE_QUEUE_POLL_INTERVAL_S,
    ) -> None:
        self._broker: Union[_Redis, _RabbitMQ]
        scheme = urllib.parse.urlsplit(broker_url).scheme
        if scheme in ("redis", "rediss"):
            self._broker = _Redis(broker_url)
        elif scheme in ("amqp", "amqps"):
            self._broker = _RabbitMQ(broker_url, rabbitmq_management_url)
        else:
            raise ValueError(
                "broker_url must begin with redis://, rediss://, amqp:// or amqps://, got "
                f"{scheme or 'no scheme'}"
            )
        self._queue_name = queue_name
        self._poll_interval_s = poll_interval_s
        self._queue_length = 0
        self._polled_at: Optional[float] = None
        self._task: Optional["asyncio.Task[None]"] = None

    async def _poll_once(self) -> None:
        try:
            length = await asyncio.wait_for(self._broker.length(self._queue_name), _PATIENCE_S)
            self._queue_length = length
        except Exception as e:  # whatever a broker says: the last answer counts
            logger.warning(
                "Failed to get queue length for '%s': %s", self._queue_name, e or type(e).__name__
            )

    def _poll_if_due(self) -> None:
        now = time.monotonic()
        if self._task is not None and not self._task.done():
            return
        if self._polled_at is None or now - self._polled_at >= self._poll_interval_s:
            self._polled_at = now
            self._task = asyncio.get_running_loop().create_task(self._poll_once())

    def __call__(self, ctx: AutoscalingContext) -> Tuple[Union[int, float], Dict[str, Any]]:
        self._poll_if_due()
        config: Any = ctx.config
        workload = ctx.total_num_requests + self._queue_length
        state = {"queue_length": self._queue_length}
        if ctx.current_num_replicas == 0:
            return 1 if workload > 0 else 0, state
        return workload / config.get_target_ongoing_requests(), state


class _Redis:
    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._port = parts.port or 6379
        self._tls = ssl.create_default_context() if parts.scheme == "rediss" else None
        self._user = urllib.parse.unquote(parts.username or "")
        self._password = urllib.parse.unquote(parts.password or "")
        database = parts.path.strip("/") or "0"
        if not database.isdigit():
            raise ValueError(f"the database of a Redis URL must be a number, got {database!r}")
        self._database = int(database)

    async def length(self, queue: str) -> int:
        commands: List[List[str]] = []
        if self._password:
            commands.append(["AUTH", *([self._user] if self._user else []), self._password])
        if self._database:
            commands.append(["SELECT", str(self._database)])
        setup = len(commands)
        commands += [["LLEN", queue + suffix] for suffix in _REDIS_SUFFIXES]
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            writer.write(b"".join(_redis_command(c) for c in commands))
            answers = [await _redis_answer(reader) for _ in commands]
        finally:
            writer.close()
        return sum(int(a) for a in answers[setup:])


def _redis_command(words: List[str]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


async def _redis_answer(reader: asyncio.StreamReader) -> str:
    """Of AUTH, SELECT or LLEN: a word or a number."""
    line = (await reader.readuntil(b"\r\n")).decode("utf-8", "replace").rstrip()
    if line[:1] not in ("+", ":"):
        raise ValueError(f"Redis answers {line[:100]!r}")
    return line[1:]


class _RabbitMQ:
    def __init__(self, url: str, management_url: Optional[str]) -> None:
        broker = urllib.parse.urlsplit(url)
        default = f"http://{broker.hostname or 'localhost'}:15672/api/"
        api = urllib.parse.urlsplit(management_url or default)
        if api.scheme not in ("http", "https"):
            raise ValueError(f"rabbitmq_management_url must be an http URL, got {management_url!r}")
        user = api.username or broker.username or "guest"
        password = api.password or broker.password or "guest"
        token = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}".encode()
        self._headers = {"Authorization": "Basic " + base64.b64encode(token).decode()}
        vhost = urllib.parse.quote(urllib.parse.unquote(broker.path[1:]) or "/", safe="")
        host = api.netloc.rpartition("@")[2]
        path = api.path if api.path.endswith("/") else api.path + "/"
        self._base = f"{api.scheme}://{host}{path}queues/{vhost}/"

    async def length(self, queue: str) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._fetch, queue)

    def _fetch(self, queue: str) -> int:
        url = self._base + urllib.parse.quote(queue, safe="")
        request = urllib.request.Request(url, headers=self._headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            found = json.loads(answer.read(_ANSWER_MAX))
        return int(found["messages"])
