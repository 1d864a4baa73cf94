"""The `ray.serve` logger of a replica: Ray's line format, to stderr, which the node captures."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Dict, List, Optional

from rserve._call import request_context

LOGGER_NAME = "ray.serve"

_STANDARD = frozenset(
    "args asctime created exc_info exc_text filename funcName levelname levelno lineno message "
    "module msecs msg name pathname process processName relativeCreated stack_info thread "
    "threadName "
    "taskName".split()
)


def _request() -> Any:
    return request_context.get()


class TextFormatter(logging.Formatter):
    """`LEVEL date time component id [request id] -- message`"""

    def __init__(self, component: str, component_id: str) -> None:
        super().__init__()
        self._who = f"{component} {component_id}".strip()

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        request_id = getattr(_request(), "request_id", "")
        parts = [record.levelname, f"{stamp},{int(record.msecs):03d}", self._who]
        if request_id:
            parts.append(request_id)
        text = " ".join(p for p in parts if p) + " -- " + record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text


class JSONFormatter(logging.Formatter):
    """One JSON object a line, with the request and the replica."""

    def __init__(self, fields: Dict[str, Any], attributes: List[str]) -> None:
        super().__init__()
        self._fields = fields
        self._attributes = attributes

    def format(self, record: logging.LogRecord) -> str:
        out: Dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
            "timestamp_ns": int(record.created * 1e9),
        }
        if record.exc_info:
            out["exc_text"] = self.formatException(record.exc_info)
        call = _request()
        if call is not None:
            out["request_id"] = call.request_id
            out["route"] = call.route
        out.update(self._fields)
        for name in self._attributes:
            out[name] = getattr(record, name, None)
        for name, value in record.__dict__.items():
            if name not in _STANDARD and name not in out and not name.startswith("_"):
                out[name] = value
        return json.dumps(out, default=str)


def configure(
    app: str, deployment: str, replica_id: str, config: Optional[Dict[str, Any]] = None
) -> None:
    """Sets the logger up; again for every change of `logging_config`."""
    config = config or {}
    logger = logging.getLogger(LOGGER_NAME)
    level = config.get("log_level") or "INFO"
    logger.setLevel(level.upper() if isinstance(level, str) else level)
    logger.propagate = False
    attributes = list(config.get("additional_log_standard_attrs") or ())
    encoding = config.get("encoding") or os.environ.get("RAY_SERVE_LOG_ENCODING") or "TEXT"
    if str(encoding).upper() == "JSON":
        formatter: logging.Formatter = JSONFormatter(
            {
                "application": app,
                "deployment": deployment,
                "replica": replica_id,
                "component_name": "replica",
                "component_id": replica_id,
            },
            attributes,
        )
    else:
        formatter = TextFormatter(f"{app}_{deployment}" if app else deployment, replica_id)
    for handler in list(logger.handlers):
        if getattr(handler, "rserve", False):
            logger.removeHandler(handler)
    handlers: List[logging.Handler] = []
    if config.get("logs_dir"):
        handlers.append(_file_handler(str(config["logs_dir"]), app, deployment, replica_id))
    if not handlers or os.environ.get("RAY_SERVE_LOG_TO_STDERR") != "0":
        handlers.append(_StderrHandler())
    for handler in handlers:
        handler.rserve = True  # type: ignore[attr-defined]
        handler.setFormatter(formatter)
        logger.addHandler(handler)


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever sys.stderr is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def _file_handler(folder: str, app: str, deployment: str, replica_id: str) -> logging.Handler:
    import re
    from logging.handlers import RotatingFileHandler

    os.makedirs(folder, exist_ok=True)
    name = re.sub(r"[^0-9A-Za-z_.-]", "_", f"replica_{app}_{deployment}_{replica_id}.log")
    return RotatingFileHandler(os.path.join(folder, name), maxBytes=512 << 20, backupCount=5)
