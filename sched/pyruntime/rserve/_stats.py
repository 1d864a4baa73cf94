"""What a replica tells of itself for decisions about it: `record_autoscaling_stats` for autoscaling
policies, `record_routing_stats` for request routers. Each is asked once per period."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import os
from typing import Any, Dict, Optional

from rserve import _wire as w

logger = logging.getLogger("ray.serve")

DEFAULT_METRICS_INTERVAL_S = 10.0
DEFAULT_ROUTING_PERIOD_S = 10.0
DEFAULT_ROUTING_TIMEOUT_S = 30.0


def start(link: Any, servable: Any, config: Dict[str, Any]) -> "list[asyncio.Task[None]]":
    """The tasks that ask; none where there is nothing to ask or nobody who wants to know."""
    loop = asyncio.get_running_loop()
    tasks = []
    scaling = config.get("autoscaling_config")
    record = getattr(servable, "record_autoscaling_stats", None)
    if isinstance(scaling, dict) and callable(record) and not inspect.isfunction(servable):
        period = _positive(scaling.get("metrics_interval_s"), DEFAULT_METRICS_INTERVAL_S)
        timeout = _positive(os.environ.get("RAY_SERVE_RECORD_AUTOSCALING_STATS_TIMEOUT_S"), 10.0)
        tasks.append(
            loop.create_task(_ask(link, record, "autoscaling_stats", period, timeout, _figures))
        )
    router = config.get("request_router_config")
    record = getattr(servable, "record_routing_stats", None)
    if callable(record) and not inspect.isfunction(servable):
        router = router if isinstance(router, dict) else {}
        period = _positive(router.get("request_routing_stats_period_s"), DEFAULT_ROUTING_PERIOD_S)
        timeout = _positive(
            router.get("request_routing_stats_timeout_s"), DEFAULT_ROUTING_TIMEOUT_S
        )
        tasks.append(loop.create_task(_ask(link, record, "routing_stats", period, timeout, _dict)))
    return tasks


def _positive(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if number > 0 and math.isfinite(number) else default


def _figures(value: Any) -> Dict[str, Any]:
    """{name: number}. TypeError: anything else."""
    if not isinstance(value, dict):
        raise TypeError(f"record_autoscaling_stats must return a dict, got {type(value).__name__}")
    for key, number in value.items():
        if not isinstance(key, str) or isinstance(number, bool):
            raise TypeError(f"record_autoscaling_stats returned {key!r}: {number!r}")
        if not isinstance(number, (int, float)) or not math.isfinite(number):
            raise TypeError(f"record_autoscaling_stats returned {key!r}: {number!r}, no number")
    return value


def _dict(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"record_routing_stats must return a dict, got {type(value).__name__}")
    return value


async def _ask(
    link: Any, record: Any, member: str, period: float, timeout: float, check: Any
) -> None:
    """Until it returns something of a wrong type. What it raises is logged, and it is asked on."""
    told: Optional[str] = None
    while True:
        try:
            value = await asyncio.wait_for(_call(record), timeout)
        except asyncio.CancelledError:
            raise
        except asyncio.TimeoutError as e:
            told = _warn(told, f"{record.__name__} did not return within {timeout:g} s")
            _count(member, e)
        except Exception as e:
            _count(member, e)
            told = _warn(told, f"{record.__name__} raised {type(e).__name__}: {e}")
        else:
            try:
                link.send_json(w.STATS, {member: check(value)})
                told = None
            except (TypeError, ValueError) as e:
                _count(member, e)
                logger.error("%s: it is not called any more.", e)
                return
        await asyncio.sleep(period)


async def _call(record: Any) -> Any:
    if inspect.iscoroutinefunction(record):
        return await record()
    value = record()
    return await value if inspect.isawaitable(value) else value


_failed: Any = None


def _count(member: str, error: BaseException) -> None:
    """Ray's counter of what autoscaling policies are not told; made when it is first needed."""
    global _failed
    if member != "autoscaling_stats":
        return
    if _failed is None:
        from ray.serve.metrics import Counter

        _failed = Counter(
            "serve_record_autoscaling_stats_failed",
            description="The number of errored record_autoscaling_stats invocations.",
            tag_keys=("exception_name",),
        )
    _failed.inc(tags={"exception_name": type(error).__name__})


def _warn(told: Optional[str], text: str) -> str:
    if text != told:
        logger.warning("%s.", text)
    return text
