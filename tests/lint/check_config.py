#!/usr/bin/env python3
"""docs/config.md is what the tables say. check_config.py SOURCE_ROOT RSERVE

To write it anew: rserve help config --markdown > docs/config.md
"""

import difflib
import os
import subprocess
import sys


def main(root: str, rserve: str) -> int:
    with open(os.path.join(root, "docs/config.md"), encoding="utf-8") as f:
        page = f.read()
    said = subprocess.run([rserve, "help", "config", "--markdown"], stdout=subprocess.PIPE,
                          check=True).stdout.decode()
    if page == said:
        print("docs/config.md: ok")
        return 0
    sys.stdout.writelines(difflib.unified_diff(page.splitlines(True), said.splitlines(True),
                                               "docs/config.md", "rserve help config --markdown"))
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
