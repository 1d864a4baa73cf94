#!/usr/bin/env python3
"""Joins the parts of a header to one file. join_header.py OUTPUT HEADER PART...

A part stands where the header, or another part, includes it by its file name.
"""

import os
import re
import sys
from typing import Dict, Sequence


def join(texts: Dict[str, str], name: str) -> str:
    def part(m: "re.Match[str]") -> str:
        return join(texts, m[1]) if m[1] in texts else m[0]

    return re.sub(r'^#include "([^"]+)"\n', part, texts[name], flags=re.M)


def main(output: str, inputs: Sequence[str]) -> int:
    texts = {}
    for path in inputs:
        with open(path, encoding="utf-8") as f:
            texts[os.path.basename(path)] = f.read()
    text = join(texts, os.path.basename(inputs[0]))
    with open(output, "w", encoding="utf-8") as f:
        f.write(text)
    left = re.findall(r'^#include ".*', text, flags=re.M)
    if left:
        print("%s still needs %s" % (output, ", ".join(left)), file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
