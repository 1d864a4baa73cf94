"""Answers that are nothing but the items of a call: the node passes those on itself.

A `StreamingResponse` over a handle's generator, and a method that returns one, would only copy each
item from one frame to the next. Their RESPONSE names the call instead (BODY_OF), and its items no
longer come here. All else stays as it is: whoever iterates the generator waits for its end or for
its error, and gets the items that the node does not pass on.

A StreamingResponse is found when it begins to iterate: by then its head went through everything
that the application has wrapped around `send`. Where something in there might look at the body, as
most middleware does, items come here.
"""

from __future__ import annotations

import functools
import sys
import threading
from types import CodeType, FrameType
from typing import Any, Optional

from rserve import _wire as w
from rserve._call import Call
from rserve._http import Channel

#: Functions of Starlette that wrap `send` and pass bodies on untouched.
_TRANSPARENT = frozenset(
    (
        ("starlette.middleware.errors", "ServerErrorMiddleware.__call__.<locals>._send"),
        ("starlette.middleware.exceptions", "ExceptionMiddleware.__call__.<locals>.sender"),
        (
            "starlette._exception_handler",
            "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender",
        ),
    )
)
#: The same for a method that `functools.partial` gives its `send`.
_TRANSPARENT_METHODS = frozenset((("starlette.middleware.cors", "CORSMiddleware.send"),))


def _inner(send: Any) -> Any:
    """What `send` passes bodies on to; None: it may look at them, or is not known."""
    if isinstance(send, functools.partial):
        function = getattr(send.func, "__func__", None)
        name = (getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
        return send.keywords.get("send") if name in _TRANSPARENT_METHODS else None
    code: Optional[CodeType] = getattr(send, "__code__", None)
    if code is None or (send.__module__, send.__qualname__) not in _TRANSPARENT:
        return None
    if "send" not in code.co_freevars:
        return None
    return send.__closure__[code.co_freevars.index("send")].cell_contents


def _channel(send: Any) -> Optional[Channel]:
    """The channel of a request that `send` leads to."""
    while send is not None:
        if getattr(send, "__func__", None) is Channel.send:
            channel: Channel = send.__self__
            return channel
        send = _inner(send)
    return None


def _can(call: Call, response: Any) -> bool:
    """Whether items of `response` may go where the answer of `call` goes."""
    link = response._link
    return bool(
        response._stream
        and not response._done
        and call.link is link
        and not call.cancelled
        and not call.answered
        and threading.get_ident() == link.thread_id
    )


def iterated(response: Any, frame: FrameType) -> None:
    """Code in `frame` begins to iterate a generator of a handle."""
    responses = sys.modules.get("starlette.responses")
    if responses is None or frame.f_code is not _stream_code(responses):
        return
    names = frame.f_locals
    charset = getattr(names.get("self"), "charset", "")
    channel = _channel(names.get("send"))
    if channel is None or not channel.status or channel.opened or charset != "utf-8":
        return
    if not _can(channel.call, response):
        return
    if not response._begun:
        channel.opened = True
        channel.call.open_answer(channel.meta() + _body_of(response))
    elif response._in_items and response._content_type == w.PICKLE:
        response._outlet = _Outlet(channel)


class _Outlet:
    """The answer that items go to which had begun to come before it was known."""

    __slots__ = ("channel", "tries")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.tries = 3


def ask_again(response: Any) -> None:
    """All items that came were sent on: unless more are under way, the node can do the rest."""
    outlet: _Outlet = response._outlet
    channel, call = outlet.channel, outlet.channel.call
    outlet.tries -= 1
    if not outlet.tries:
        response._outlet = None
    if not _can(call, response):
        return
    fields = _body_of(response) + w.field_u64(w.T_GOT, response._got)
    if channel.opened:
        call.link.send(w.pack(w.PASS, 0, call.stream, fields))
    else:
        channel.opened = True
        call.open_answer(channel.meta() + fields)


def _body_of(response: Any) -> bytes:
    return w.field_u64(w.T_BODY_OF, response._stream)


def _stream_code(responses: Any) -> Any:
    return getattr(responses.StreamingResponse.stream_response, "__code__", None)


def returned(call: Call, value: Any, meta: bytes) -> bool:
    """A streaming method returned `value`: whether its items are the answer, which then is begun
    with the fields `meta`."""
    from ray.serve.handle import DeploymentResponseGenerator

    if not isinstance(value, DeploymentResponseGenerator) or value._begun or not _can(call, value):
        return False
    call.open_answer(meta + _body_of(value))
    return True
