"""Constants of `ray.serve._private.constants` that applications import."""

from __future__ import annotations

SERVE_LOGGER_NAME = "ray.serve"
SERVE_NAMESPACE = "serve"
SERVE_CONTROLLER_NAME = "SERVE_CONTROLLER_ACTOR"
SERVE_DEFAULT_APP_NAME = "default"
DEFAULT_HTTP_HOST = "127.0.0.1"
DEFAULT_HTTP_PORT = 8000
DEFAULT_GRPC_PORT = 9000
DEFAULT_MAX_ONGOING_REQUESTS = 5
DEFAULT_ROLLING_UPDATE_PERCENTAGE = 0.2
SERVE_MULTIPLEXED_MODEL_ID = "serve_multiplexed_model_id"
