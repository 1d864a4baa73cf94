#!/usr/bin/env python3
"""The layer rule: who may include whom. check_layers.py SOURCE_ROOT

A layer is a folder of the root. Inside core, and between the folders of a layer where a line below
says so, a folder includes only those that stand before it.
"""

import os
import re
import sys
from typing import Dict, Iterator, List, Sequence, Tuple

# What a layer may include besides itself.
LAYERS: Dict[str, Sequence[str]] = {
    "core": (),
    "gpu": ("core",),
    "sched": ("core", "gpu"),
    "net": ("core",),
    "kube": ("core", "net"),
    "cmd": ("core", "gpu", "sched", "net", "kube"),
}
# The folders of a layer, each of which may include those before it. `net/wire` and the pure parts
# of `sched` know nothing of what is built on them.
ORDER: Dict[str, Sequence[str]] = {
    "core": ("base", "loop", "metrics", "resource", "model", "config", "graph", "store", "events"),
}
# A folder that is narrower than its layer: it may include these folders and itself, nothing else.
NARROW: Dict[str, Sequence[str]] = {
    "core/loop": ("core/base",),
    "core/metrics": ("core/base",),
    "core/resource": ("core/base",),
    "core/model": ("core/base", "core/resource"),
    "core/config": ("core/base", "core/resource", "core/model"),
    "core/graph": ("core/base", "core/model", "core/config"),
    "net/wire": ("core/base", "core/loop"),
}
# Headers of libraries, and the only places that may include them.
LIBRARIES: Dict[str, Sequence[str]] = {
    "microhttpd.h": ("net/http", "cmd/version.c"),
    "llhttp.h": ("net/http", "cmd/version.c", "tests/fuzz"),
    "yaml.h": ("core/config", "cmd/version.c"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def includes(path: str) -> Iterator[Tuple[int, str, str]]:
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            m = INCLUDE.match(line)
            if m:
                yield number, m[1], m[2]


def judge(name: str, target: str) -> str:
    """Why the file `name` may not include "target"; "" if it may."""
    layer, to = name.split("/")[0], target.split("/")[0]
    if to not in LAYERS:
        return "" if "/" not in target else "no such layer: %s" % to
    if to != layer and to not in LAYERS[layer]:
        return "%s may not include %s" % (layer, to)
    folder, to_folder = os.path.dirname(name), os.path.dirname(target)
    if folder in NARROW and to_folder != folder and to_folder not in NARROW[folder]:
        return "%s may not include %s" % (folder, to_folder)
    if layer == to and layer in ORDER and folder != to_folder:
        order = ORDER[layer]
        here, there = folder.split("/")[1], to_folder.split("/")[1]
        if here not in order or there not in order or order.index(there) > order.index(here):
            return "%s stands before %s in %s" % (folder, to_folder, layer)
    return ""


def check(root: str) -> List[str]:
    wrong = []
    for layer in LAYERS:
        for folder, _, files in os.walk(os.path.join(root, layer)):
            for file in sorted(files):
                if not file.endswith((".c", ".h")):
                    continue
                path = os.path.join(folder, file)
                name = os.path.relpath(path, root)
                for line, kind, target in includes(path):
                    if kind == '"':
                        why = judge(name, target)
                    else:
                        where = LIBRARIES.get(target)
                        ok = where is None or name.startswith(tuple(where))
                        why = "" if ok else "<%s> belongs to %s" % (target, ", ".join(where or ()))
                    if why:
                        wrong.append("%s:%d: %s" % (name, line, why))
    return wrong


def self_test() -> None:
    assert judge("core/base/a.c", "core/loop/loop.h")
    assert judge("sched/a.c", "net/wire/frame.h")
    assert judge("net/http/a.c", "sched/agent.h")
    assert judge("core/graph/a.c", "core/store/store.h")
    assert judge("net/wire/frame.c", "net/http/server.h")
    assert judge("core/a.c", "nowhere/b.h")
    assert not judge("core/graph/a.c", "core/base/error.h")
    assert not judge("cmd/main.c", "sched/agent.h")
    assert not judge("net/http/a.c", "net/wire/frame.h")


if __name__ == "__main__":
    self_test()
    found = check(sys.argv[1])
    print("\n".join(found) or "layers: ok")
    sys.exit(1 if found else 0)
