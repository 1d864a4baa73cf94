#!/usr/bin/env python3
"""Packs files into a zip archive, written as a C array.

    embed.py SYMBOL OUTPUT.c [--package FOLDER]... FILE...

Defines `const unsigned char SYMBOL[]` and `const size_t SYMBOL_size`. A FILE is named in the
archive by its path relative to this script; the Python files of a --package FOLDER go under
vendor/. The result depends on nothing but the contents and the Python that runs this: names are
sorted, times are those of 1980.

Each module goes in twice: as source, and compiled for this Python, which interpreters of the same
version load in half the time. Others take the source.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import sys
import zipfile
from pathlib import Path
from typing import Dict, List, Tuple

HERE = Path(__file__).resolve().parent


def collect(arguments: List[str]) -> Dict[str, bytes]:
    """Archive names and contents."""
    files: Dict[str, bytes] = {}
    at = 0
    while at < len(arguments):
        if arguments[at] == "--package":
            folder = Path(arguments[at + 1])
            at += 2
            found = sorted(folder.glob("*.py"))
            if not found:
                sys.exit(
                    f"embed.py: no Python files in {folder}: install the Debian package that has it"
                )
            for path in found:
                files[f"vendor/{folder.name}/{path.name}"] = path.read_bytes()
            continue
        path = Path(arguments[at]).resolve()
        at += 1
        files[path.relative_to(HERE).as_posix()] = path.read_bytes()
    return files


def compiled(name: str, source: bytes) -> bytes:
    """A .pyc that is never checked against its source (PEP 552)."""
    code = compile(source, f"<rserve>/{name}", "exec", dont_inherit=True)
    flags = (1).to_bytes(4, "little")
    check = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + check + marshal.dumps(code)


def pack(files: Dict[str, bytes]) -> bytes:
    """The archive."""
    files = dict(files)
    for name, source in list(files.items()):
        if name.endswith(".py"):
            files[name + "c"] = compiled(name, source)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def to_c(symbol: str, data: bytes) -> str:
    """The archive as C source."""
    lines = [
        "/* Made by embed.py; do not edit. */",
        "#include <stddef.h>",
        "",
        f"extern const unsigned char {symbol}[];",
        f"extern const size_t {symbol}_size;",
        "",
        f"const unsigned char {symbol}[] = {{",
    ]
    for start in range(0, len(data), 20):
        lines.append("\t" + ",".join(str(b) for b in data[start : start + 20]) + ",")
    lines += ["};", "", f"const size_t {symbol}_size = sizeof({symbol});", ""]
    return "\n".join(lines)


def split(arguments: List[str]) -> Tuple[str, str, List[str]]:
    if len(arguments) < 3:
        sys.exit(__doc__)
    return arguments[0], arguments[1], arguments[2:]


def main() -> None:
    symbol, output, rest = split(sys.argv[1:])
    text = to_c(symbol, pack(collect(rest)))
    with open(output, "w", encoding="ascii", newline="\n") as file:
        file.write(text)


if __name__ == "__main__":
    main()
