"""What was found as a table: rserve, what stands beside it in the same run, and the goal."""

import os
import re
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from loads import Idle, Result
from processes import say
from systems import ROOT

CHUNKS = 50


class Found(NamedTuple):
    closed: Dict[str, Result]  # by target
    tails: Dict[str, float]  # p99.9 in ms, by target
    large: Dict[str, float]  # ms; "unix" and "tcp" are copying alone
    idle: Dict[str, Idle]
    figures: Dict[str, float]  # start, memory, and of a replica


class Row(NamedTuple):
    what: str
    ours: Optional[float]
    other: Optional[float]  # beside it
    form: Callable[[float], str]
    beside: str
    goal: Callable[[float, Optional[float]], bool]
    goal_text: str
    more_is_better: bool = True
    ray: str = ""  # Ray Serve 2.60 with every fast flag on, on another machine with 2 cores


def number(x: float) -> str:
    return "{:,.0f}".format(x)


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def ms(x: float) -> str:
    return "%.3f ms" % x if x < 1 else "%.2f ms" % x


def mb(x: float) -> str:
    return "%s MB" % number(x / 1e6)


def times(ours: Row) -> str:
    if ours.ours is None or not ours.other:
        return ""
    return "%.2f×" % (ours.ours / ours.other)


def at_least(factor: float) -> Callable[[float, Optional[float]], bool]:
    return lambda ours, other: other is not None and ours >= factor * other


def at_most(factor: float) -> Callable[[float, Optional[float]], bool]:
    return lambda ours, other: other is not None and ours <= factor * other


def rows(f: Found) -> List[Row]:
    def rate(key: str, factor: float = 1) -> Optional[float]:
        return f.closed[key].rate * factor if key in f.closed else None

    def p50(key: str) -> Optional[float]:
        return f.closed[key].p50 if key in f.closed else None
    held = f.idle.get("rserve")
    kept = f.idle.get("haproxy")
    quiet = f.idle.get("four")
    connections = number(held.connections) if held else "10,000"
    return [
        Row("C replica, 64 connections, requests/s", rate("c"), rate("haproxy"), number,
            "HAProxy hop", at_least(1.3), "≥ 1.3×"),
        Row("C replica, 1 connection, p50", p50("c1"), p50("haproxy1"), ms, "HAProxy hop",
            at_most(1), "≤ 1×", False),
        Row("no-op Python replica, requests/s", rate("noop"), rate("uvicorn"), number,
            "uvicorn + FastAPI", at_least(2.5), "≥ 2.5×", True, "4,571"),
        Row("two hops of 10 KB, FastAPI in front, requests/s", rate("fastapi-echo"),
            rate("uvicorn-echo"), number, "uvicorn + FastAPI, one hop", at_least(0.7), "≥ 0.7×",
            True, "818"),
        Row("two hops of 10 KB, requests/s", rate("echo"), rate("uvicorn-echo"), number,
            "uvicorn + FastAPI, one hop", lambda ours, _: ours >= 12000, "≥ 12,000"),
        Row("rag, 4 deployments, requests/s", rate("rag"), None, number, "",
            lambda ours, _: ours >= 5000, "≥ 5,000", True, "233"),
        Row("rag, 1 connection, p50", p50("rag1"), None, ms, "", lambda ours, _: ours <= 0.6,
            "≤ 0.6 ms", False, "7.1 ms"),
        Row("two hops, stream of 50 chunks, chunks/s", rate("stream", CHUNKS),
            rate("uvicorn-stream", CHUNKS), number, "uvicorn + FastAPI, one hop",
            lambda ours, _: ours >= 100000, "≥ 100,000", True, "6,800"),
        Row("10 MB in and out, C replica, p50", f.large.get("large"), f.large.get("unix"), ms,
            "plain echo over a Unix socket", at_most(1.2), "≤ 1.2×", False, "2.9 to 8 ms"),
        Row("the same", f.large.get("large"), f.large.get("tcp"), ms,
            "plain echo over TCP, as the client has", lambda ours, _: True, "none", False),
        Row("`http` replica, 64 connections, requests/s", rate("http"), rate("nginx"), number,
            "nginx hop, same server", at_least(1), "≥ 1×"),
        Row("C replica, open loop at 70 % of capacity, p99.9", f.tails.get("c"),
            f.tails.get("haproxy"), ms, "HAProxy hop", at_most(2), "≤ 2×", False),
        Row("%s idle keep-alive connections: memory (PSS)" % connections,
            held and float(held.memory), kept and float(kept.memory), mb, "HAProxy",
            at_most(1), "≤ 1×", False),
        Row("the same: wake-ups in 5 s without a health check", held and float(held.wakeups),
            kept and float(kept.wakeups), number, "HAProxy", lambda ours, _: ours == 0, "0", False),
        Row("four Python applications: wake-ups in 5 s without a health check",
            quiet and float(quiet.wakeups), None, number, "", lambda ours, _: ours == 0, "0",
            False),
        Row("four applications: from nothing to running", f.figures.get("start"), None,
            lambda x: "%.2f s" % x, "", lambda ours, _: ours < 1.5, "< 1.50 s", False, "28 s"),
        Row("the same: memory (PSS) of all processes", f.figures.get("memory"), None, mb, "",
            lambda ours, _: ours < 200e6, "< 200 MB", False, "1,960 MB"),
    ]


def goals(f: Found) -> Tuple[List[str], bool]:
    lines = [line("", "rserve", "beside it, in the same run", "ratio", "Ray Serve 2.60", "goal"),
             line("---", "---:", "---", "---:", "---:", "---")]
    met = True
    for r in rows(f):
        if r.ours is None:
            lines.append(line(r.what, "not run", "", "", r.ray, r.goal_text))
            continue
        ok = r.goal(r.ours, r.other)
        met = met and ok
        beside = "%s: %s" % (r.beside, r.form(r.other)) if r.other is not None else r.beside
        lines.append(line(r.what, r.form(r.ours), beside, times(r), r.ray,
                          r.goal_text if r.goal_text == "none" else
                          "%s: %s" % (r.goal_text, "met" if ok else "**missed**")))
    return lines, met


def side_by_side(f: Found) -> List[str]:
    lines = [line("all that was loaded, in turns", "requests/s", "p50", "p99"),
             line("---", "---:", "---:", "---:")]
    for key, what in (
            ("c", "rserve → C echo replica"),
            ("nginx", "nginx → HTTP server in C"),
            ("haproxy", "HAProxy → HTTP server in C"),
            ("http", "rserve → the same HTTP server"),
            ("c1", "rserve → C echo replica, 1 connection"),
            ("nginx1", "nginx → HTTP server in C, 1 connection"),
            ("haproxy1", "HAProxy → HTTP server in C, 1 connection"),
            ("noop", "rserve → no-op Python replica"),
            ("uvicorn", "uvicorn + FastAPI, no-op"),
            ("nginx-uvicorn", "nginx → uvicorn + FastAPI, no-op"),
            ("fastapi-echo", "rserve, two hops of 10 KB, FastAPI in front"),
            ("echo", "rserve, two hops of 10 KB"),
            ("uvicorn-echo", "uvicorn + FastAPI, one hop of 10 KB"),
            ("rag", "rserve, rag"),
            ("rag1", "rserve, rag, 1 connection"),
            ("stream", "rserve, stream of 50 chunks, two hops"),
            ("direct", "rserve, stream of 50 chunks"),
            ("uvicorn-stream", "uvicorn + FastAPI, stream of 50 chunks")):
        r = f.closed.get(key)
        if r:
            lines.append(line(what, number(r.rate), ms(r.p50), ms(r.p99)))
        else:
            lines.append(line(what, "not run", "", ""))
    return lines


def report(f: Found, about: str) -> Tuple[str, bool]:
    lines, met = goals(f)
    lines += [""] + side_by_side(f)
    if "replica" in f.figures:
        lines += ["", "Memory per replica (PSS, median): Python %.1f MB%s." % (
            f.figures["replica"] / 1e6,
            ", C %.2f MB" % (f.figures["c_replica"] / 1e6) if "c_replica" in f.figures else "")]
    lines.append(about)
    return "\n".join(lines) + "\n", met


def update_readme(table: str) -> None:
    path = os.path.join(ROOT, "README.md")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    new, n = re.subn(r"(?s)<!-- bench -->\n.*?<!-- /bench -->",
                     lambda m: "<!-- bench -->\n%s<!-- /bench -->" % table, text)
    if n != 1:
        raise SystemExit("bench: README.md: expected one pair of bench markers, got %d" % n)
    with open(path, "w", encoding="utf-8") as f:
        f.write(new)
    say("README.md is up to date")
