import asyncio
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request

import ray
from ray import serve

PORT = int(os.environ["GOLDEN_PORT"])


def out(*values):
    print("OUT", *values, flush=True)


def attempt(label, f):
    try:
        out(label, "->", f())
    except BaseException as e:
        if type(e).__name__ == "ValidationError":
            return out(label, "raised ValidationError")
        text = str(e).strip().splitlines()
        out(label, "raised", type(e).__name__, "|", re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text[-1])[:200] if text else "")


def until(f, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = f()
        if value:
            return value
        time.sleep(0.05)
    return f()


def http(path, data=None, method=None, headers={}, timeout=60):
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    r = urllib.request.Request("http://127.0.0.1:%d%s" % (PORT, path), data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(r, timeout=timeout) as f:
            return f.status, f.headers.get("content-type"), f.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get("content-type"), e.read().decode()


serve.start(http_options={"host": "127.0.0.1", "port": PORT})


import collections
import contextvars
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import types
import typing
import uuid
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
from pydantic import BaseModel
from ray.serve import Application, Deployment  # noqa
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int = 2


Old = collections.namedtuple("Old", "a b")


@dataclasses.dataclass
class Data:
    x: int
    items: List[int] = dataclasses.field(default_factory=list)
    handle: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    __slots__ = ("x",)


class Model(BaseModel):
    name: str
    sub: Optional["Model"] = None
    values: Dict[str, float] = {}


class Slots:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Tree:
    def __init__(self):
        self.me = self


class Meta(type):
    def describe(cls):
        return "described " + cls.__name__


class WithMeta(metaclass=Meta):
    pass


class Magic:
    def __getattr__(self, name):
        if not name.startswith("any"):
            raise AttributeError(name)
        return "magic " + name


GLOBAL = ["module global"]
COUNTER = 0


def helper(x):
    return [GLOBAL[0], x]


def bump():
    global COUNTER
    COUNTER += 1
    return COUNTER


@serve.deployment(max_ongoing_requests=50)
class V:
    limit = 5
    shared: List[int] = []

    def __init__(self, handle: Optional[DeploymentHandle] = None):
        self.h = handle

    def echo(self, x):
        return x

    def kind(self, x):
        return [type(x).__name__, type(x).__module__ in ("__main__", "builtins", "numpy", "decimal", "collections")]

    def same(self, x):
        return [x is Color.RED, x == Color.RED, isinstance(x, Color)]

    def isinst(self, x):
        return [isinstance(x, c) for c in (Point, Data, Model)]

    def call(self, f, *a):
        return f(*a)

    def helper(self, x):
        return helper(x)

    def bump(self):
        return bump()

    def class_attribute(self):
        V2 = type(self)
        V2.shared.append(1)
        return [self.limit, V2.shared, V2.__name__, V2.__qualname__]

    @property
    def prop(self):
        return "property"

    def use_prop(self):
        return self.prop

    def cached(self, x):
        return [x, bump()]

    def main(self):
        import __main__
        return [__name__, type(self).__module__]

    async def via_dataclass(self, d):
        return await d.handle.echo.remote(d.x)

    def mutate(self, x):
        x.append("mutated")
        return x

    def defaults(self, x=[]):
        x.append(1)
        return x

    def kw_only(self, *, a, b=2):
        return [a, b]

    def pos_only(self, a, /, b):
        return [a, b]

    def annotated(self, x: int) -> str:
        return x


@serve.deployment
class M(Magic):
    def real(self):
        return "real"

    def __call__(self, x=None):
        return [self.anything, x]


h = serve.run(V.bind(), name="v", route_prefix=None)
local = "local variable"


def closure(n):
    def inner(x):
        return [n, x, local]
    return inner


for label, value in [("enum", Color.RED), ("enum str", Color.BLUE), ("flag", Level.A | Level.B), ("named tuple", Point(1)), ("old named tuple", Old(1, 2)), ("dataclass", Data(1, [2])), ("model", Model(name="a", sub=Model(name="b"), values={"x": 1})), ("decimal", decimal.Decimal("1.10")), ("date", datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)), ("delta", datetime.timedelta(seconds=5)), ("path", pathlib.PurePosixPath("/a/b")), ("uuid", uuid.UUID(int=3)), ("complex", 1 + 2j), ("range", range(3)), ("frozenset", frozenset([1])), ("ordered", collections.OrderedDict(a=1)), ("default", collections.defaultdict(list, {"a": [1]})), ("counter", collections.Counter("aab")), ("deque", collections.deque([1, 2], maxlen=2)), ("ellipsis", ...), ("type", int), ("own type", Point), ("np scalar", np.float32(1.5)), ("np array", np.arange(4).reshape(2, 2)), ("np object", np.array(["a", None], dtype=object)), ("np struct", np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])), ("np date", np.datetime64("2020-01-01")), ("big int", 2**200), ("nan", float("inf")), ("memoryview", bytes(memoryview(b"abc"))), ("simple namespace", types.SimpleNamespace(a=1)), ("partial", functools.partial(int, base=2).func), ("typing", List[int])]:
    attempt("echo " + label, lambda: h.echo.remote(value).result())
    attempt("kind " + label, lambda: h.kind.remote(value).result())
attempt("same enum", lambda: h.same.remote(Color.RED).result())
attempt("identity", lambda: h.echo.remote(Color.RED).result() is Color.RED)
attempt("isinstance", lambda: [h.isinst.remote(x).result() for x in (Point(1), Data(1), Model(name="a"))])
attempt("back isinstance", lambda: [isinstance(h.echo.remote(x).result(), type(x)) for x in (Point(1), Data(1), Model(name="a"))])
attempt("recursive", lambda: (lambda t: t.me is t)(h.echo.remote(Tree()).result()))
attempt("metaclass", lambda: h.echo.remote(WithMeta).result().describe())
attempt("lambda", lambda: h.call.remote(lambda x: [x, local], 1).result())
attempt("closure", lambda: h.call.remote(closure(5), 1).result())
attempt("partial", lambda: h.call.remote(functools.partial(helper, 3)).result())
attempt("function back", lambda: h.echo.remote(closure(6)).result()(2))
attempt("bound method", lambda: h.call.remote(Data(4, [1]).items.copy).result())
def refused(value):
    try:
        h.echo.remote(value).result()
    except TypeError as e:
        return "cannot pickle" in str(e)


attempt("generator value", lambda: refused(x for x in [1]))
attempt("lock", lambda: refused(threading.Lock()))
attempt("module", lambda: h.echo.remote(json).result().__name__)
attempt("helper", lambda: h.helper.remote(1).result())
GLOBAL[0] = "changed after"
attempt("helper after change", lambda: h.helper.remote(1).result())
attempt("bump", lambda: [h.bump.remote().result(), h.bump.remote().result(), COUNTER])
attempt("class attribute", lambda: [h.class_attribute.remote().result(), h.class_attribute.remote().result()])
attempt("property", lambda: h.use_prop.remote().result())
attempt("property as method", lambda: h.prop.remote().result())
attempt("cached", lambda: [h.cached.remote(1).result(), h.cached.remote(1).result()])
attempt("main", lambda: h.main.remote().result())
attempt("dataclass with handle", lambda: h.via_dataclass.remote(Data(7, handle=h)).result())
mine = []
attempt("mutate", lambda: [h.mutate.remote(mine).result(), mine])
attempt("defaults", lambda: [h.defaults.remote().result(), h.defaults.remote().result()])
attempt("kw only", lambda: h.kw_only.remote(a=1).result())
attempt("kw only missing", lambda: h.kw_only.remote(1).result())
attempt("pos only", lambda: h.pos_only.remote(1, b=2).result())
attempt("pos only by name", lambda: h.pos_only.remote(a=1, b=2).result())
attempt("annotated", lambda: h.annotated.remote("not int").result())
attempt("unexpected", lambda: h.echo.remote(1, absent=2).result())
attempt("magic", lambda: serve.run(M.bind(), name="m", route_prefix=None).remote(1).result())
attempt("magic real", lambda: serve.get_app_handle("m").real.remote().result())
attempt("magic method", lambda: serve.get_app_handle("m").unreal.remote().result())
attempt("underscore", lambda: type(h._x).__name__)
attempt("bool of handle", lambda: [bool(h), h == h, hash(h) == hash(h)])
attempt("bind dataclass", lambda: serve.run(V.bind(Data(1, [2])), name="v2", route_prefix=None).call.remote(len, [1]).result())
attempt("repr", lambda: [type(h.echo.remote(1)).__name__, type(h.options(stream=True).echo).__name__])
attempt("isinstance response", lambda: [isinstance(h.echo.remote(1), DeploymentResponse), isinstance(h.options(stream=True).echo.remote(1), DeploymentResponseGenerator)])
attempt("cloudpickle handle", lambda: ray.cloudpickle.loads(ray.cloudpickle.dumps(h)).echo.remote(2).result())
attempt("pickle response", lambda: type(ray.cloudpickle.dumps(h.echo.remote(1))).__name__)
attempt("response as string", lambda: h.echo.remote("x" + str(h.echo.remote("y").result())).result())
@serve.deployment(max_ongoing_requests=50)
class C:
    def __init__(self):
        global var
        var = contextvars.ContextVar("var", default="default")

    async def set(self, x):
        before = var.get()
        var.set(x)
        await asyncio.sleep(0.01)
        return [before, var.get()]

    def sync(self):
        return var.get()


c = serve.run(C.bind(), name="c", route_prefix=None)
attempt("contextvar", lambda: [c.set.remote(i).result() for i in range(3)])
attempt("contextvar sync", lambda: c.sync.remote().result())
serve.shutdown()
