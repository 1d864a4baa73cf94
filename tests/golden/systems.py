"""The systems under test: rserve, one process per case, and Ray Serve, the reference."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from clients import rest


def words(command):
    """Splits a command; a relative path of the program is taken from here, not from the case."""
    out = shlex.split(command)
    if "/" in out[0]:
        out[0] = os.path.abspath(out[0])
    return out


taken = set()
taken_lock = threading.Lock()


def free_port():
    """A port that nothing listens on and that no other case of this run was given."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with taken_lock:
            if port not in taken:
                taken.add(port)
                return port


def scrub(value, parent=None):
    """Remove what the runner itself put into the configuration (see Ray.prepare)."""
    if isinstance(value, dict):
        env = value.get("runtime_env")
        if isinstance(env, dict):
            (env.get("env_vars") or {}).pop("PYTHONPATH", None)
            if not env.get("env_vars"):
                env.pop("env_vars", None)
            if not env and parent == "ray_actor_options":
                del value["runtime_env"]
        for k, v in value.items():
            scrub(v, k)
    elif isinstance(value, list):
        for v in value:
            scrub(v, parent)
    return value


class System:
    http_port = dash_port = metrics_port = None

    def assign(self):
        """Choose the ports of the next case, where each case has its own."""

    def details(self):
        status, _, body = rest(self.dash_port, "GET", "/api/serve/applications/")
        if status != 200:
            return {"applications": {}, "http_status": status}
        return scrub(json.loads(body))

    def put(self, config):
        return rest(self.dash_port, "PUT", "/api/serve/applications/", config)

    def prepare(self, config, folder):
        return config

    def env(self, folder):
        return dict(os.environ, GOLDEN_PORT=str(self.http_port), PYTHONPATH=folder,
                    PYTHONDONTWRITEBYTECODE="1",
                    RAY_DASHBOARD_ADDRESS="http://127.0.0.1:%d" % self.dash_port)


class Rserve(System):
    """One process per case: the --run command, killed with its process group at the end."""

    def __init__(self, args):
        self.args, self.proc = args, None

    def open(self):
        pass

    def close(self):
        pass

    def assign(self):
        self.http_port, self.dash_port, self.metrics_port = free_port(), free_port(), free_port()

    def begin(self, folder, text, config, meta):
        path = os.path.join(folder, "app.yaml")
        cmd = [a.format(config=path, port=self.http_port, dashboard_port=self.dash_port,
                        metrics_port=self.metrics_port, folder=folder)
               for a in words(self.args.run)]
        self.log = open(os.path.join(folder, "system.log"), "wb")
        self.proc = subprocess.Popen(cmd, cwd=folder, env=self.env(folder),
                                     stdin=subprocess.DEVNULL, stdout=self.log,
                                     stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + self.args.start_timeout
        while time.monotonic() < deadline:
            if self.proc.poll() is not None:
                raise RuntimeError("system exited with %s:\n%s" % (self.proc.returncode,
                                                                    self.tail()))
            try:
                rest(self.dash_port, "GET", "/api/serve/applications/", timeout=5)
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("REST API did not come up:\n" + self.tail())

    def tail(self):
        if not hasattr(self, "log"):
            return ""
        with open(self.log.name, "rb") as f:
            return f.read()[-3000:].decode("utf-8", "replace")

    def env(self, folder):
        return dict(super().env(folder), XDG_STATE_HOME=os.path.join(folder, ".state"))

    def end(self):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(40)
            except subprocess.TimeoutExpired:
                pass
        if self.proc:
            try:
                os.killpg(self.proc.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.proc.wait()
            self.log.close()
        self.proc = None

    def serve_cli(self):
        return words(self.args.serve_cli or "rserve serve")

    def script(self):
        return words(self.args.script or "rserve python")

    def metrics(self):
        url = self.args.metrics.format(port=self.http_port, dashboard_port=self.dash_port,
                                       metrics_port=self.metrics_port)
        host, _, path = url.partition("//")[2].partition("/")
        return rest(int(host.rpartition(":")[2]), "GET", "/" + path)[2].decode()


class Ray(System):
    """The reference: one cluster, one Serve instance while the HTTP options stay the same."""

    def __init__(self, args):
        self.args, self.options, self.ours = args, None, False

    def tool(self, name):
        return os.path.join(self.args.ray_bin, name) if self.args.ray_bin else name

    def open(self):
        self.http_port, self.dash_port, self.metrics_port, gcs = (free_port() for _ in range(4))
        self.gcs = gcs
        self.current = os.path.join(tempfile.mkdtemp(prefix="golden-path-"), "current")
        os.mkdir(self.current + ".empty")
        os.symlink(self.current + ".empty", self.current)
        # the cases were recorded without tokens; where they are the default they are opted out of
        os.environ["RAY_AUTH_MODE"] = "disabled"
        env = dict(os.environ, RAY_SERVE_ENABLE_HA_PROXY="0", PYTHONPATH=self.current)
        env.pop("RAY_ADDRESS", None)
        subprocess.run([self.tool("ray"), "start", "--head", "--num-cpus=16", "--num-gpus=8",
                        "--disable-usage-stats", "--port=%d" % gcs, "--dashboard-host=127.0.0.1",
                        "--dashboard-port=%d" % self.dash_port, "--include-dashboard=true",
                        "--metrics-export-port=%d" % self.metrics_port],
                       env=env, check=True, stdout=subprocess.DEVNULL, timeout=180)
        self.ours = True
        deadline = time.monotonic() + 120
        while True:
            try:
                if rest(self.dash_port, "GET", "/api/serve/applications/", timeout=30)[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("dashboard did not come up")
            time.sleep(1)

    def close(self):
        if self.ours:
            subprocess.run([self.tool("ray"), "stop", "--force"], stdout=subprocess.DEVNULL,
                           timeout=120)
            shutil.rmtree(os.path.dirname(self.current), ignore_errors=True)

    def prepare(self, config, folder):
        """Make the case's modules importable; Ray's workers do not run in the case folder."""
        config = json.loads(json.dumps(config))
        for app in config.get("applications") or []:
            if isinstance(app, dict) and isinstance(app.get("runtime_env", {}), dict):
                app.setdefault("runtime_env", {}).setdefault("env_vars", {})["PYTHONPATH"] = folder
        return config

    def begin(self, folder, text, config, meta):
        if os.path.islink(self.current):
            os.unlink(self.current)
        os.symlink(folder, self.current)  # controller and dashboard import policies by path
        options = {k: config.get(k) for k in ("http_options", "proxy_location", "logging_config",
                                              "grpc_options")}
        if self.options is not None and (options != self.options or meta.get("fresh")):
            rest(self.dash_port, "DELETE", "/api/serve/applications/")
            self.options = None
        status, _, body = self.put(self.prepare(config, folder))
        if status != 200:
            raise RuntimeError("PUT answered %s: %s" % (status, body.decode()))
        self.options = options

    def end(self, dirty=False):
        if dirty or self.options is None:
            rest(self.dash_port, "DELETE", "/api/serve/applications/")
            self.options = None
            return
        self.put(dict({k: v for k, v in self.options.items() if v}, applications=[]))
        deadline = time.monotonic() + 60
        while self.details().get("applications"):
            if time.monotonic() > deadline:
                rest(self.dash_port, "DELETE", "/api/serve/applications/")
                self.options = None
                return
            time.sleep(0.2)

    def env(self, folder):
        env = super().env(folder)
        env["RAY_ADDRESS"] = "127.0.0.1:%d" % self.gcs
        return env

    def serve_cli(self):
        return [self.tool("serve")]

    def script(self):
        return [self.tool("python")]

    def tail(self):
        return ""

    def metrics(self):
        return rest(self.metrics_port, "GET", "/metrics")[2].decode()
