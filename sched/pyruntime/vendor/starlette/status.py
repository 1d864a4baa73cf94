"""HTTP status codes by name: HTTP_200_OK and so on."""

from __future__ import annotations

import http

for _status in http.HTTPStatus:
    globals()[f"HTTP_{_status.value}_{_status.name}"] = _status.value
globals().setdefault("HTTP_418_IM_A_TEAPOT", 418)
for _old, _code in (
    ("HTTP_413_REQUEST_ENTITY_TOO_LARGE", 413),
    ("HTTP_413_CONTENT_TOO_LARGE", 413),
    ("HTTP_414_REQUEST_URI_TOO_LONG", 414),
    ("HTTP_422_UNPROCESSABLE_ENTITY", 422),
    ("HTTP_422_UNPROCESSABLE_CONTENT", 422),
):
    globals().setdefault(_old, _code)
