#!/usr/bin/env python3
"""net/wire/PROTOCOL.md lists exactly what net/wire/messages.def defines. check_protocol.py ROOT"""

import os
import re
import sys
from typing import Dict, List, Tuple

Row = Tuple[str, ...]
DEF = re.compile(r"^(RS_MSG|RS_TAG)\(\s*(\w+),\s*(\d+),\s*(.*)\)\s*$", re.S | re.M)
ARGUMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|(\w+)')
ENUM = re.compile(r"^\s*RS_WIRE_([A-Z_]+)(?:\s*=\s*(\d+))?,", re.M)


def defined(text: str) -> Dict[str, List[Row]]:
    """Per macro: rows of (number, name, strings...)."""
    rows: Dict[str, List[Row]] = {"RS_MSG": [], "RS_TAG": []}
    for block in re.split(r"(?m)^(?=RS_(?:MSG|TAG)\()", text):
        m = DEF.match(block.split("\n\n")[0].split("\n#")[0].strip())
        if m:
            # neighbouring strings are one, arguments are separated by commas
            joined = re.sub(r'"\s*\n\s*"', "", m[4])
            rows[m[1]].append((m[3], m[2]) + tuple(a or b for a, b in ARGUMENT.findall(joined)))
    return rows


def tabled(text: str, heading: str) -> List[Row]:
    """The rows of the first table after `heading`."""
    lines = text[text.index(heading):].splitlines()
    while lines and not lines[0].startswith("|"):
        lines.pop(0)
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
    return rows


def compare(what: str, code: List[Row], page: List[Row]) -> List[str]:
    wrong = ["PROTOCOL.md lacks the %s %s" % (what, " | ".join(r)) for r in code if r not in page]
    wrong += ["messages.def lacks the %s %s" % (what, " | ".join(r)) for r in page if r not in code]
    numbers = [r[0] for r in code]
    wrong += ["two %ss have number %s" % (what, n)
              for n in sorted(set(numbers)) if numbers.count(n) > 1]
    if not code:
        wrong.append("no %s found in the code" % what)
    return wrong


def error_codes(text: str) -> List[Row]:
    rows, number = [], 0
    for name, value in ENUM.findall(text[text.index("enum rs_wire_error"):].split("};")[0]):
        number = int(value) if value else number + 1
        rows.append((str(number), name))
    return rows


def main(root: str) -> int:
    def read(name: str) -> str:
        with open(os.path.join(root, "net/wire", name), encoding="utf-8") as f:
            return f.read()

    page, table = read("PROTOCOL.md"), defined(read("messages.def"))
    wrong = compare("message", table["RS_MSG"], tabled(page, "## 4. Messages"))
    wrong += compare("field", table["RS_TAG"], tabled(page, "## 5. Metadata fields"))
    wrong += compare("error code", error_codes(read("frame.h")),
                     [r[:2] for r in tabled(page, "### Errors")])
    counts = len(table["RS_MSG"]), len(table["RS_TAG"])
    print("\n".join(wrong) or "%d messages, %d fields: ok" % counts)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
