"""The zygote: imports the application once, describes its graph, and forks replicas.

Runs as `python -m rserve.zygote` with the connection to the node in RSERVE_FD. It has one thread
and waits for nothing but the node.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
from collections import deque
from typing import Any, Deque, Dict, List

from rserve import _process
from rserve import _wire as w


class Zygote:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = w.Reader(sock)
        self._inbox: Deque[w.Frame] = deque()
        self._graph: Any = None

    def run(self) -> int:
        w.send_json(
            self._sock,
            w.HELLO,
            {
                "protocol": w.PROTOCOL,
                "kind": "zygote",
                "pid": os.getpid(),
                "python": ".".join(str(n) for n in sys.version_info[:3]),
                "executable": sys.executable,
            },
        )
        while True:
            try:
                frame = w.read_frame(self._reader, self._inbox)
            except (w.HangUp, w.ProtocolError, OSError):
                return 0
            if frame.type == w.BUILD:
                self._build(w.parse_json(frame))
            elif frame.type == w.FORK:
                self._fork(w.parse_json(frame), list(frame.fds))
            elif frame.type == w.STOP:
                return 0
            else:
                return 1

    # --- BUILD

    def _build(self, message: Dict[str, Any]) -> None:
        from rserve import _graph
        from rserve._errors import BuildError, one_line, user_traceback

        app = str(message.get("app") or "default")
        # The node's question where an import hangs: the stack goes where its output goes.
        faulthandler.register(signal.SIGUSR2, 2, chain=False)
        try:
            _process.run_setup_hook(message.get("runtime_env") or {}, message.get("app_dir"))
            if message.get("import_path") is None:
                self._build_nothing(app, message)
                return
            self._graph = _graph.load(
                app,
                str(message.get("import_path") or ""),
                message.get("app_dir"),
                message.get("args") or {},
            )
            description = self._graph.describe()
        except BuildError as e:
            self._failed(e.message(app=app))
            return
        except BaseException as e:
            trace = user_traceback(e)
            self._failed(BuildError("build", type(e).__name__, one_line(e), trace).message(app=app))
            return
        finally:
            faulthandler.unregister(signal.SIGUSR2)
            sys.stdout.flush()
            sys.stderr.flush()
        _warm_up(self._graph)
        reason = _process.reason_not_to_fork()
        description["start"] = "spawn" if reason else "fork"
        description["start_reason"] = reason or ""
        try:
            data = w.pack_json(w.GRAPH, description)
        except (ValueError, TypeError) as e:
            self._failed(BuildError("validate", type(e).__name__, one_line(e)).message(app=app))
            return
        if not reason:
            gc.collect()
            gc.freeze()
        self._sock.sendall(data)

    def _build_nothing(self, app: str, message: Dict[str, Any]) -> None:
        """For actors and tasks of a program outside: there is nothing to import beforehand."""
        from rserve import _graph, worker

        _graph.add_app_dir(message.get("app_dir"))
        worker.add_paths(message.get("args") or {})
        self._graph = _graph.Graph(app)
        _warm_up(self._graph)
        gc.collect()
        gc.freeze()
        description = {"app": app, "ingress": "", "deployments": [], "start": "fork"}
        self._sock.sendall(w.pack_json(w.GRAPH, description))

    def _failed(self, message: Dict[str, Any]) -> None:
        w.send_json(self._sock, w.FAILED, message)

    # --- FORK

    def _fork(self, message: Dict[str, Any], fds: List[int]) -> None:
        replica_id = str(message.get("replica_id"))
        error = None
        pid = 0
        if len(fds) != 3:
            error = f"FORK needs 3 descriptors, {len(fds)} came"
        elif self._graph is None:
            error = "FORK came before an application was built"
        else:
            try:
                pid = self._double_fork(fds, str(message.get("role") or "replica"))
            except OSError as e:
                error = f"cannot fork: {e}"
        for fd in fds:
            os.close(fd)
        if error is not None:
            self._failed(
                {"replica_id": replica_id, "phase": "fork", "error": error, "traceback": ""}
            )
        else:
            w.send_json(self._sock, w.FORKED, {"replica_id": replica_id, "pid": pid})

    def _double_fork(self, fds: List[int], role: str) -> int:
        """The replica is a grandchild: when the process between ends, the node inherits it."""
        sys.stdout.flush()
        sys.stderr.flush()
        read_end, write_end = os.pipe()
        middle = os.fork()
        if middle == 0:
            try:
                middle_pid = os.getpid()
                pid = os.fork()
                if pid == 0:
                    os.close(read_end)
                    os.close(write_end)
                    self._become_replica(fds, middle_pid, role)
                os.write(write_end, pid.to_bytes(8, "little"))
            except BaseException:
                os._exit(1)
            os._exit(0)
        os.close(write_end)
        try:
            _, status = os.waitpid(middle, 0)
            data = os.read(read_end, 8)
        finally:
            os.close(read_end)
        if len(data) != 8 or status != 0:
            raise OSError("the process between the zygote and the replica failed")
        return int.from_bytes(data, "little")

    def _become_replica(self, fds: List[int], middle_pid: int, role: str) -> None:
        """In the new process; does not return."""
        status = 1
        try:
            sock_fd, out_fd, err_fd = fds
            os.dup2(out_fd, 1)
            os.dup2(err_fd, 2)
            os.close(out_fd)
            os.close(err_fd)
            self._sock.close()
            self._reader.close()
            _process.own_process_group()
            while os.getppid() == middle_pid:
                os.sched_yield()
            _process.die_with_parent()
            _process.reseed()
            sock = socket.socket(fileno=sock_fd)
            if role == "policy":
                from rserve import _policy_process

                status = _policy_process.run(sock, self._graph)
            elif role == "router":
                from rserve import _router_process

                status = _router_process.run(sock, self._graph)
            else:
                from rserve import replica

                status = replica.run(sock, self._graph)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)


def _warm_up(graph: Any) -> None:
    """Imports what every replica needs before the first fork, so that they share it."""
    import rserve.replica  # noqa: F401
    import rserve.worker  # noqa: F401
    from rserve import _http, _log

    try:
        _http.request_class()
    except Exception:
        pass  # a replica that needs the broken package says so
    _process.load_libc()
    _log.configure(graph.app, "build", str(os.getpid()))


def main() -> int:
    fd = w.fd_from_environment()
    if fd is None:
        print("rserve.zygote is started by rserve; RSERVE_FD is not set", file=sys.stderr)
        return 2
    os.environ.pop("RSERVE_FD", None)
    os.set_inheritable(fd, False)
    _process.hold_environment()
    _process.remember_environment()
    _process.ignore_interrupts()
    _process.line_buffered_output()
    return Zygote(socket.socket(fileno=fd)).run()


if __name__ == "__main__":
    sys.exit(main())
