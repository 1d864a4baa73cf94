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


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("odd %s %s" % (a, b))
        self.a = a
        self.b = b


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__("code %d" % code)
        self.code = code


class Reduced(Exception):
    def __init__(self, a, b):
        super().__init__("reduced")
        self.a, self.b = a, b

    def __reduce__(self):
        return (Reduced, (self.a, self.b))


class NoStr(Exception):
    def __str__(self):
        raise RuntimeError("no str")


class WithLock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Final(Exception):
    def __init_subclass__(cls, **k):
        raise TypeError("cannot be subclassed")


class Multi(ValueError, KeyError):
    pass


class Attributed(Exception):
    status = 418

    def __init__(self, text):
        super().__init__(text)
        self.extra = {"x": [1, 2]}


class Base(BaseException):
    pass


@serve.deployment(max_ongoing_requests=50)
class F:
    def raises(self, kind):
        if kind == "odd":
            raise Odd(1, 2)
        if kind == "keyword":
            raise KeywordOnly(code=5)
        if kind == "reduced":
            raise Reduced(1, 2)
        if kind == "nostr":
            raise NoStr("x")
        if kind == "lock":
            raise WithLock("locked")
        if kind == "final":
            raise Final("final")
        if kind == "multi":
            raise Multi("multi")
        if kind == "attributed":
            raise Attributed("attributed")
        if kind == "from":
            try:
                raise KeyError("inner")
            except KeyError as e:
                raise ValueError("outer") from e
        if kind == "context":
            try:
                raise KeyError("inner")
            except KeyError:
                raise ValueError("outer")
        if kind == "none":
            try:
                raise KeyError("inner")
            except KeyError:
                raise ValueError("outer") from None
        if kind == "oserror":
            raise FileNotFoundError(2, "No such file", "/absent")
        if kind == "open":
            open("/absent/file")
        if kind == "unicode":
            b"\xff".decode()
        if kind == "assert":
            assert kind == "x", "asserted"
        if kind == "zero":
            return 1 / 0
        if kind == "json":
            json.loads("{")
        if kind == "empty":
            raise ValueError
        if kind == "lines":
            raise ValueError("line 1\nline 2")
        if kind == "args":
            raise ValueError("a", 1, [2])
        if kind == "timeout":
            raise TimeoutError("user's timeout")
        if kind == "atimeout":
            raise asyncio.TimeoutError()
        if kind == "cancelled":
            raise asyncio.CancelledError()
        if kind == "local":
            class Local(Exception):
                pass
            raise Local("local")
        if kind == "recursion":
            return self.raises(kind)
        if kind == "notes":
            e = ValueError("noted")
            if hasattr(e, "add_note"):
                e.add_note("a note")
            raise e
        if kind == "stopasync":
            raise StopAsyncIteration("s")
        if kind == "generatorexit":
            raise GeneratorExit("g")
        if kind == "exec":
            exec("raise ValueError('from exec')")
        if kind == "ray":
            raise ray.exceptions.RayActorError()
        if kind == "http":
            from starlette.exceptions import HTTPException
            raise HTTPException(404, "not here")

    async def araises(self, kind):
        return self.raises(kind)

    def returns(self, kind):
        return {"odd": lambda: Odd(1, 2), "value": lambda: ValueError("returned"), "class": lambda: Odd, "attributed": lambda: Attributed("t")}[kind]()

    async def group(self):
        import builtins
        if not hasattr(builtins, "ExceptionGroup"):
            return "none"
        raise builtins.ExceptionGroup("several", [ValueError("a"), KeyError("b")])

    async def gather(self):
        async def one(i):
            if i == 1:
                raise ValueError("one of them")
            return i
        r = await asyncio.gather(*[one(i) for i in range(3)], return_exceptions=True)
        return [type(x).__name__ for x in r]

    def gen(self, kind):
        yield 1
        self.raises(kind)
        yield 2

    async def agen(self, kind):
        yield 1
        self.raises(kind)
        yield 2

    def gen_at_once(self):
        raise ValueError("before the first")
        yield 1

    def __call__(self, request):
        return self.raises(request.query_params["kind"])


@serve.deployment
class Middle:
    def __init__(self, f):
        self.f = f

    async def through(self, kind):
        return await self.f.raises.remote(kind)

    async def caught(self, kind):
        try:
            await self.f.raises.remote(kind)
        except Exception as e:
            return [type(e).__name__, isinstance(e, ray.exceptions.RayTaskError), isinstance(e, ValueError), type(getattr(e, "cause", None)).__name__]

    async def wrapped(self, kind):
        try:
            await self.f.raises.remote(kind)
        except Exception as e:
            raise RuntimeError("wrapped") from e

    async def stream(self, kind):
        async for x in self.f.options(stream=True).agen.remote(kind):
            yield x

    async def gathered(self):
        r = await asyncio.gather(self.f.raises.remote("odd"), self.f.raises.remote("nothing"), self.f.raises.remote("from"), return_exceptions=True)
        return [type(x).__name__ for x in r]


h = serve.run(Middle.bind(F.bind()), name="e", route_prefix=None)
f = serve.get_deployment_handle("F", "e")
serve.run(F.options(name="G").bind(), name="g", route_prefix="/g")
KINDS = ("odd", "keyword", "reduced", "nostr", "lock", "final", "multi", "attributed", "from", "context", "none", "oserror", "open", "unicode", "assert", "zero", "json", "empty", "lines", "args", "timeout", "atimeout", "local", "recursion", "notes", "exec", "ray", "nothing")


def look(label, call):
    try:
        out(label, "->", call())
    except BaseException as e:
        c = getattr(e, "cause", None)
        try:
            text = str(e).strip().splitlines()
        except BaseException as s:
            text = ["str raises " + type(s).__name__]
        out(label, "raised", type(e).__name__, isinstance(e, ray.exceptions.RayTaskError), [b.__name__ for b in type(e).__mro__ if b.__name__ in ("ValueError", "KeyError", "OSError", "Odd", "Attributed", "TimeoutError", "HTTPException")], type(c).__name__, "|", re.sub("0x[0-9a-f]+", "0x", text[-1])[:150] if text else "")


for kind in KINDS:
    look(kind, lambda: f.raises.remote(kind).result())
for kind in ("odd", "from", "lock", "local"):
    look("async " + kind, lambda: f.araises.remote(kind).result())
    look("through " + kind, lambda: h.through.remote(kind).result())
    look("wrapped " + kind, lambda: h.wrapped.remote(kind).result())
    attempt("caught " + kind, lambda: h.caught.remote(kind).result())


def items(call):
    got = []
    try:
        for x in call():
            got.append(x)
    except Exception as e:
        got.append([type(e).__name__, isinstance(e, ray.exceptions.RayTaskError)])
    return got


for kind in ("odd", "from", "nothing"):
    attempt("gen " + kind, lambda: items(lambda: f.options(stream=True).gen.remote(kind)))
    attempt("agen " + kind, lambda: items(lambda: f.options(stream=True).agen.remote(kind)))
    attempt("stream " + kind, lambda: items(lambda: h.options(stream=True).stream.remote(kind)))
attempt("gen at once", lambda: items(lambda: f.options(stream=True).gen_at_once.remote()))
for kind in ("value", "class", "attributed"):
    attempt("returns " + kind, lambda: (lambda r: [str(r), getattr(r, "a", None), getattr(r, "extra", None)])(f.returns.remote(kind).result()))
look("group", lambda: f.group.remote().result())
attempt("gather", lambda: f.gather.remote().result())
attempt("gathered", lambda: h.gathered.remote().result())
for kind in ("odd", "from", "http", "timeout", "nostr", "lines"):
    attempt("http " + kind, lambda: http("/g?kind=" + kind))


def attributes():
    try:
        f.raises.remote("attributed").result()
    except Exception as e:
        return [e.status, getattr(e, "extra", None), getattr(e, "args", None) is not None, e.cause.extra]


attempt("attributes", attributes)


def odd_attributes():
    try:
        f.raises.remote("reduced").result()
    except Exception as e:
        return [getattr(e, "a", None), type(e.cause).__name__, e.cause.a]


attempt("reduced attributes", odd_attributes)


def chain():
    try:
        f.raises.remote("from").result()
    except Exception as e:
        text = str(e)
        return ["ValueError: outer" in text, type(e.__cause__).__name__, type(e.cause.__cause__).__name__]


attempt("chain", chain)


class Broken(Exception):
    pass


@serve.deployment
class BadInit:
    def __init__(self):
        raise Broken("cannot start")

    def __call__(self):
        return 1


attempt("constructor", lambda: serve.run(BadInit.options(max_constructor_retry_count=1).bind(), name="bad", route_prefix=None))
s = serve.status().applications["bad"]
out(str(s.status), "cannot start" in s.deployments["BadInit"].message, str(s.deployments["BadInit"].status))


@serve.deployment
class Exits:
    def __call__(self, kind):
        if kind == "exit":
            raise SystemExit(3)
        if kind == "interrupt":
            raise KeyboardInterrupt("k")
        if kind == "base":
            raise Base("b")
        return "fine"


x = serve.run(Exits.bind(), name="x", route_prefix=None)
look("fine", lambda: x.remote("").result(timeout_s=20))
serve.shutdown()
