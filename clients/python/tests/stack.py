"""Processes of a test's own: a Redis, a gateway and a worker that may be stopped, killed and started again."""
from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
#: Nothing here takes this long, on any machine.
PATIENCE = 90.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what: str, look):
    """Waits for a fact."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE} seconds: {what}")


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


class Stack:
    """`with Stack(tmp_path, binary) as stack: stack.redis(); stack.gateway(); stack.worker()`, each optional and in any order."""

    def __init__(self, folder: Path, binary: str) -> None:
        self.folder, self.binary = folder, binary
        self.redis_port, self.port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.broker, self.backend = (f"redis://127.0.0.1:{self.redis_port}/{database}" for database in (0, 1))
        self._running: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in list(self._running):
            self.kill(name)

    def redis(self) -> None:
        self._start("redis", ["redis-server", "--port", str(self.redis_port), "--save", "", "--dir", str(self.folder)])
        until("Redis listens", lambda: listens(self.redis_port))

    def gateway(self, more: str = "") -> None:
        config = self.folder / "taskgate.toml"
        config.write_text(
            f'auth = "none"\nhttp.listen = "127.0.0.1:{self.port}"\ndatabase.url = "sqlite://{self.folder}/ledger.db"\n'
            f'broker.url = "{self.broker}"\nbackend.url = "{self.backend}"\n'
            f'submit.allow = ["demo.*", "lib.*", "celery.*", "shop.*"]\n{more}'
        )
        self._start("gateway", [self.binary, "serve", "--config", str(config)])
        until("the gateway listens", lambda: self.alive("gateway") is not None and listens(self.port))

    def worker(self, app: str = "app", queues: str = "celery", *arguments: str) -> None:
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-c", "2", "-Q", queues, "-n", "w@own"]
        self._start("worker", [*command, *arguments])
        until("the worker is ready", lambda: " ready." in self.alive("worker"))
        if "gateway" in self._running:
            until("the gateway hears its events", lambda: "enabled by remote" in self.alive("worker"))

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def alive(self, name: str) -> str:
        """The log of what runs; an error when it has ended."""
        assert self._running[name].poll() is None, f"{name} has ended:\n{self.log(name)}"
        return self.log(name)

    def environment(self) -> dict[str, str]:
        path = [str(ROOT / "tests" / "celery_app"), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ, "CELERY_BROKER_URL": self.broker, "CELERY_RESULT_BACKEND": self.backend, "TASKGATE_URL": self.url,
            "PYTHONPATH": os.pathsep.join(path), "C_FORCE_ROOT": "1",
        }

    def _start(self, name: str, command: list[str]) -> None:
        environment = self.environment()
        if name == "gateway":
            environment = {key: value for key, value in environment.items() if not key.startswith(("CELERY_", "TASKGATE_"))}
        with open(self.folder / f"{name}.log", "w") as log:
            self._running[name] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_die_with_parent,
            )


def _die_with_parent() -> None:
    """Nothing outlives the tests: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
