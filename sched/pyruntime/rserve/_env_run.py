"""Runs installers: their lines become progress, and their last ones the error.

The tool shares the builder's process group and dies with it; it holds the lock of the environment
that it fills. Values of env_vars are blotted out of everything that is passed on.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Sequence

from rserve import _process
from rserve._env_spec import EnvError

#: What makes another try worth while, in the words of pip, uv, conda and the libraries below them.
_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|NameResolutionError"
    r"|Failed to establish a new connection|NewConnectionError"
    r"|Connection(Reset|Aborted|Refused)Error"
    r"|Connection (refused|reset|aborted|timed out|broken)|connection broken by|Read timed out"
    r"|ReadTimeoutError|ConnectTimeoutError|IncompleteRead|Network is unreachable|dns error"
    r"|error sending request|CondaHTTPError|(502|503|504) Server Error|tcp connect error",
    re.IGNORECASE,
)
_ERROR = re.compile(r"^\s*(ERROR|error|Error|fatal|FATAL|×|╰─>|\w*Error):?")
_KEPT = 400
_SHOWN = 20


class Reporter:
    """Where progress goes. Lines that follow each other quickly are dropped, but for the last."""

    def __init__(self, send: Callable[[str], None], gap_s: float = 1.0) -> None:
        self._send = send
        self._gap_s = gap_s
        self._sent_at = 0.0
        self._last = ""
        self._secrets: List[str] = []

    def hide(self, values: Sequence[str]) -> None:
        self._secrets = sorted((v for v in values if len(v) >= 4), key=len, reverse=True)

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)

    def say(self, text: str, must: bool = True) -> None:
        now = time.monotonic()
        text = self.clean(" ".join(text.split()))[:300]
        if text == self._last or (not must and now - self._sent_at < self._gap_s):
            return
        self._last = text
        self._sent_at = now
        self._send(text)


def progress_of(line: str) -> Optional[str]:
    """What a line of pip, uv or conda means for someone who waits; None: nothing."""
    text = line.strip()
    found = re.match(r"Collecting ([^\s;(<>=!~\[]+)", text)
    if found:
        return f"resolving {found.group(1)}"
    found = re.match(r"Downloading (?:\S*/)?(\S+?)(?:#\S*)?( \([^)]*\))?$", text)
    if found:
        return f"downloading {found.group(1)}{found.group(2) or ''}"
    found = re.match(r"(?:Building|Running setup.py install) (?:wheels? )?for ([^\s(]+)", text)
    if found:
        return f"building {found.group(1)}"
    found = re.match(r"Installing collected packages: (.*)", text)
    if found:
        return f"installing {_short(found.group(1))}"
    if re.match(r"WARNING: Retrying .* after connection broken", text):
        return "the package index cannot be reached; trying again"
    found = re.match(r"(Resolved|Prepared|Installed|Downloaded) \d+ packages? in .*", text)
    if found:
        return text[0].lower() + text[1:]
    found = re.match(r"(Building|Downloading|Fetching) (\S.*)", text)
    if found:
        return f"{found.group(1).lower()} {_short(found.group(2))}"
    return None


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."


def error_lines(lines: Sequence[str]) -> List[str]:
    """The last lines that say what is wrong; else simply the last ones."""
    noise = ("WARNING", "[notice")
    useful = [line for line in lines if line.strip() and not line.startswith(noise)]
    first = next((i for i, line in enumerate(useful) if _ERROR.match(line)), None)
    if first is not None:
        useful = useful[first:]
    return useful[-_SHOWN:]


class Runner:
    """Runs tools for one environment."""

    def __init__(
        self, reporter: Reporter, env: Dict[str, str], log_path: str, lock_fd: int
    ) -> None:
        self.reporter = reporter
        self.env = env
        self._log_path = log_path
        self._lock_fd = lock_fd

    def run(self, what: str, argv: Sequence[str], cwd: Optional[str] = None) -> List[str]:
        """The lines printed. EnvError with the last of them if the status is not 0."""
        lines: Deque[str] = deque(maxlen=_KEPT)
        network = ""
        self.reporter.say(what)
        _process.load_libc()
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(self._lock_fd,),
                preexec_fn=_process.die_with_parent,
            )
        except OSError as e:
            raise EnvError(f"{what}: cannot run {argv[0]}: {e.strerror or e}") from None
        assert process.stdout is not None
        opened = open(self._log_path, "a", encoding="utf-8", errors="replace")
        with process.stdout, opened as log:
            log.write(f"$ {self.reporter.clean(' '.join(argv))}\n")
            for raw in process.stdout:
                line = self.reporter.clean(raw.decode("utf-8", "replace").rstrip())
                log.write(line + "\n")
                log.flush()
                lines.append(line)
                if _NETWORK.search(line):
                    network = line.strip()
                progress = progress_of(line)
                if progress:
                    self.reporter.say(progress, must=False)
        status = process.wait()
        if status != 0:
            how = f"status {status}" if status > 0 else f"signal {-status}"
            tool = os.path.basename(argv[0])
            said = error_lines(list(lines))
            if network and network not in [line.strip() for line in said]:
                said.insert(0, network)  # why "no such package" may not be true
            raise EnvError(f"{what} failed ({tool} ended with {how})", said, retry=bool(network))
        return list(lines)
