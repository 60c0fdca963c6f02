#!/usr/bin/env python3
"""Starts an example: taskgate with its built-in Redis, a Celery worker, and the web application. Ctrl-C stops all three.

    examples/start.py fastapi
    examples/start.py django
    examples/start.py nextjs

It finds `taskgate` by TASKGATE, on PATH or in target/, and creates a Python environment in the example's folder (or uses PYTHON).
The Next.js example needs Node 20 and no Python worker, because its task is one of dev's sample tasks.
Ports: TASKGATE_PORT (8000) and PORT (8001).
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: How long anything may take to start, in seconds.
PATIENCE = 120

#: The worker reads a separate queue, because dev's own worker reads the default one and does not know these tasks.
WORKER = ["-m", "celery", "-A", "worker", "worker", "-Q", "shop", "-c", "2", "-l", "INFO"]
WEB = {
    "fastapi": ["-m", "uvicorn", "web:app", "--host", "127.0.0.1", "--port", "{port}"],
    "django": ["-m", "django", "runserver", "--noreload", "127.0.0.1:{port}"],
}
PAGE = ["node_modules/.bin/next", "dev", "--port", "{port}"]


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in (*WEB, "nextjs"):
        sys.exit(__doc__)
    name, binary = sys.argv[1], taskgate()
    port, web_port = os.environ.get("TASKGATE_PORT", "8000"), os.environ.get("PORT", "8001")
    running: list = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as data:
        try:
            gateway = subprocess.Popen(
                [binary, "dev", "--listen", f"127.0.0.1:{port}", "--data", data], stdout=subprocess.PIPE, text=True, cwd=data
            )
            running.append(gateway)
            settings = {**os.environ, **addresses(gateway), "TASKGATE_URL": f"http://127.0.0.1:{port}"}
            settings["DJANGO_SETTINGS_MODULE"] = "settings"
            for command in commands(name):
                command = [word.format(port=web_port) for word in command]
                running.append(subprocess.Popen(command, cwd=HERE / name, env=settings))
            wait_for(f"http://127.0.0.1:{web_port}/")
            print(f"\n  {name}: http://127.0.0.1:{web_port}/\n  dashboard: http://127.0.0.1:{port}/dashboard/\n", flush=True)
            while all(process.poll() is None for process in running):
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass
        finally:
            stop(running)


def commands(name: str) -> list:
    """The commands that run besides taskgate."""
    if name == "nextjs":
        if not (HERE / name / "node_modules").exists():
            client = HERE.parent / "clients" / "typescript"
            for command in (["npm", "ci"], ["npm", "run", "build"]):
                subprocess.run(command, cwd=client, check=True)
            subprocess.run(["npm", "install"], cwd=HERE / name, check=True)
        return [PAGE]
    python = environment(HERE / name)
    return [[python, *WORKER], [python, *WEB[name]]]


def taskgate() -> str:
    found = [os.environ.get("TASKGATE"), shutil.which("taskgate")]
    found += [str(HERE.parent / "target" / kind / "taskgate") for kind in ("release", "debug")]
    for path in found:
        if path and os.access(path, os.X_OK):
            return path
    sys.exit("taskgate was not found: run `cargo build`, or set TASKGATE to its path")


def environment(folder: Path) -> str:
    """The Python of an environment with the example's requirements."""
    if os.environ.get("PYTHON"):
        return os.environ["PYTHON"]
    python = folder / ".venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"], cwd=folder, check=True)
    return str(python)


def addresses(gateway: subprocess.Popen) -> dict:
    """The addresses of dev's Redis, which dev prints before it is ready."""
    found = {}
    for line in gateway.stdout:
        sys.stdout.write(line)
        named = re.search(r"(broker|backend)\s+(redis://\S+)", line)
        if named:
            found[{"broker": "CELERY_BROKER_URL", "backend": "CELERY_RESULT_BACKEND"}[named[1]]] = named[2]
        if len(found) == 2:
            threading.Thread(target=shutil.copyfileobj, args=(gateway.stdout, sys.stdout), daemon=True).start()
            return found
    sys.exit("taskgate dev ended before it was ready")


def wait_for(url: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url} does not answer")


def stop(running: list) -> None:
    for process in reversed(running):
        process.terminate()
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    main()
