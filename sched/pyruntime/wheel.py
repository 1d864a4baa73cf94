#!/usr/bin/env python3
"""Builds the wheel `rserve`: the binary as a script, and the library as `ray` and `rserve`.

    wheel.py --binary FILE --version X.Y.Z --out FOLDER [--cloudpickle FOLDER]

After `pip install` of it `import ray.serve` finds rserve's, and `rserve` is on the PATH of the
environment. The binary is static, so the wheel fits every Linux of its machine. Prints the path of
the wheel. The result depends on the contents only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import platform
import sys
import zipfile
from pathlib import Path
from typing import Dict, List, Tuple

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent.parent

METADATA = """\
Metadata-Version: 2.1
Name: rserve
Version: {version}
Summary: Ray Serve applications without Ray: one static binary and a library named ray
License: Apache-2.0
Requires-Python: >=3.9
Classifier: License :: OSI Approved :: Apache Software License
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Description-Content-Type: text/markdown

`import ray` and `from ray import serve` in this environment are rserve's. Do not install it beside
the package `ray`: both bring a package of that name.
"""


def library(cloudpickle: Path) -> Dict[str, bytes]:
    """Names in the wheel and contents of the Python files."""
    files: Dict[str, bytes] = {}
    for package in ("ray", "rserve", "vendor"):
        for path in sorted((HERE / package).rglob("*")):
            if path.suffix == ".py" or path.name == "py.typed":
                name = path.relative_to(HERE).as_posix()
                if package == "vendor":
                    name = "rserve/_" + name
                files[name] = path.read_bytes()
    packed = sorted(cloudpickle.glob("*.py"))
    if not packed:
        sys.exit(f"wheel.py: no Python files in {cloudpickle}: install python3-cloudpickle")
    for path in packed:
        files[f"rserve/_vendor/cloudpickle/{path.name}"] = path.read_bytes()
    return files


def tag() -> str:
    machine = platform.machine()
    return f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"


def record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def entry(name: str, executable: bool) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = (0o100755 if executable else 0o100644) << 16
    return info


def build(binary: Path, version: str, out: Path, cloudpickle: Path) -> Path:
    base = f"rserve-{version}"
    files: List[Tuple[str, bytes, bool]] = [
        (name, data, False) for name, data in sorted(library(cloudpickle).items())
    ]
    files.append((f"{base}.data/scripts/rserve", binary.read_bytes(), True))
    wheel = "Wheel-Version: 1.0\nGenerator: rserve\nRoot-Is-Purelib: false\n"
    wheel += "".join(f"Tag: py3-none-{one}\n" for one in tag().split("-", 2)[2].split("."))
    files.append((f"{base}.dist-info/WHEEL", wheel.encode(), False))
    files.append((f"{base}.dist-info/METADATA", METADATA.format(version=version).encode(), False))
    files.append((f"{base}.dist-info/LICENSE", (SOURCE / "LICENSE").read_bytes(), False))
    record = "".join(record_line(name, data) for name, data, _ in files)
    record += f"{base}.dist-info/RECORD,,\n"
    files.append((f"{base}.dist-info/RECORD", record.encode(), False))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{base}-{tag()}.whl"
    temporary = path.with_suffix(".part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data, executable in files:
            archive.writestr(entry(name, executable), data)
    temporary.replace(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--cloudpickle", type=Path, default=Path("/usr/lib/python3/dist-packages/cloudpickle")
    )
    given = parser.parse_args()
    print(build(given.binary, given.version, given.out, given.cloudpickle))


if __name__ == "__main__":
    main()
