#!/usr/bin/env python3
"""Celery's own integration suite as a test of ours: `make test-peers CELERY=/path/to/celery`.

Runs `t/integration` of a checkout of Celery three times: against redis-server alone, against redis-server with a gateway attached,
and against the server of `taskgate dev`. What a test comes out as must be the same. Afterwards the attached gateway's ledger is
compared with Redis: every task of which a result record stands must be known, with the end that the record says.

Nothing is fetched: the checkout is given, redis-server and Python's packages are what tests/setup.sh installs (`.venv/peers`). Ends
with 1 when something differs that EXPECTED does not name. It takes as long as Celery's suite does, three times.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv/peers/bin/python"
# The suite has files for other backends; these are about Redis, or about no backend.
FILES = ["test_canvas.py", "test_tasks.py", "test_inspect.py", "test_loader.py", "test_worker.py", "test_serialization.py"]
# Tests whose outcome may differ, by the beginning of their name, with the runs and the reason. docs/compatibility.md repeats this table.
RACE = "its assertion reads what another thread sets, whichever comes first, also with redis-server alone"
EXPECTED = {
    "t.integration.test_inspect.": (["dev"], "the worker of dev answers, too, and the suite expects one alone"),
    "t.integration.test_tasks.test_task_replacement::test_replaced_task_nesting_": (["attached", "dev"], RACE),
}
PHASES = {"SUCCESS": {"succeeded"}, "FAILURE": {"failed"}, "REVOKED": {"revoked", "expired"}}
START = 30
SETTLE = 60


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def process(words, log, **options):
    """Runs while the block does; stopped by a signal, killed if that is not heeded."""
    with open(log, "wb") as file:
        child = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, **options)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def until(what, seconds, look):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"{what}: not within {seconds} s")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer) if answer.headers.get_content_type() == "application/json" else True
    except (urllib.error.URLError, OSError):
        return None


@contextmanager
def redis(folder):
    port = free_port()
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with process(words, folder / "redis.log"):
        until("redis-server", START, lambda: "Ready to accept" in (folder / "redis.log").read_text())
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def gateway(folder, broker):
    port = free_port()
    config = folder / "taskgate.toml"
    config.write_text(
        f"auth = 'none'\n[http]\nlisten = '127.0.0.1:{port}'\n[database]\nurl = 'sqlite://{folder}/ledger.db'\n"
        f"[broker]\nurl = '{broker}/0'\n[backend]\nurl = '{broker}/0'\n"
    )
    words = [str(ROOT / "target/debug/taskgate"), "serve", "--config", str(config)]
    with process(words, folder / "taskgate.log", cwd=folder):
        until("the gateway", START, lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def dev(folder):
    """Its own worker serves another queue than the suite's."""
    port, config = free_port(), folder / "dev.toml"
    config.write_text("[worker]\nqueues = ['of-dev']\n")
    words = [str(ROOT / "target/debug/taskgate"), "dev", "--config", str(config), "--listen", f"127.0.0.1:{port}"]
    with process(words + ["--data", str(folder / "dev")], folder / "dev.log", cwd=folder):
        said = until("dev", START, lambda: re.search(r"broker\s+(redis://\S+)/0", (folder / "dev.log").read_text()))
        yield said[1]


def suite(checkout, folder, name, broker, more):
    """What each test came out as."""
    report = folder / f"{name}.xml"
    environment = dict(os.environ, TEST_BROKER=f"{broker}/0", TEST_BACKEND=f"{broker}/0", C_FORCE_ROOT="1")
    environment["PYTHONPATH"] = os.pathsep.join([str(checkout), str(ROOT / "tests/peers")])
    # Some tests start `celery` by its name.
    environment["PATH"] = os.pathsep.join([str(PYTHON.parent), environment["PATH"]])
    words = [str(PYTHON), "-m", "pytest", "-q", "-p", "celery.contrib.pytest", "-p", "same_server", "-o", "addopts=", f"--junitxml={report}"]
    words += [f"t/integration/{file}" for file in FILES] + more
    log_path = folder / f"suite-{name}.log"
    with open(log_path, "wb") as log:
        subprocess.run(words, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if not report.exists():
        raise SystemExit(f"the suite did not run: {log_path}")
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return outcomes


def records(broker):
    """State by task id, as the records say."""
    program = (
        "import json, redis, sys\n"
        "client = redis.Redis.from_url(sys.argv[1])\n"
        "for key in client.scan_iter('celery-task-meta-*', 1000):\n"
        "    value = client.get(key)\n"
        "    if value: print(key.decode()[17:], json.loads(value)['status'])\n"
    )
    done = subprocess.run([str(PYTHON), "-c", program, f"{broker}/0"], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def audit(base, ends):
    """What the ledger says otherwise than Redis, once it has had time to read everything."""
    def wrong():
        found = {}
        for task, status in ends.items():
            task_known = answers(f"{base}/v1/tasks/{task}")
            phase = task_known["phase"] if task_known else "unknown"
            if phase not in PHASES.get(status, {phase} - {"unknown"}):
                found[task] = f"{status} in Redis, {phase} in the ledger"
        return found

    end, found = time.monotonic() + SETTLE, wrong()
    while found and time.monotonic() < end:
        time.sleep(2)
        found = wrong()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--runs", default="attached,dev", help="compared with redis-server alone: attached, dev or both")
    parser.add_argument("more", nargs="*", help="given to pytest: -k chord")
    said, more = parser.parse_known_args()
    if not (said.checkout / "t/integration").is_dir():
        raise SystemExit(f"{said.checkout} is no checkout of Celery: it has no t/integration")
    checkout, folder = said.checkout.resolve(), Path(tempfile.mkdtemp(prefix="peers-"))
    more, runs, faults, ends = said.more + more, {}, [], {}
    with ExitStack() as stack:
        runs["alone"] = suite(checkout, folder, "alone", stack.enter_context(redis(folder)), more)
    if "attached" in said.runs:
        with ExitStack() as stack:
            broker = stack.enter_context(redis(folder))
            base = stack.enter_context(gateway(folder, broker))
            runs["attached"] = suite(checkout, folder, "attached", broker, more)
            ends = records(broker)
            faults += [f"{task}: {what}" for task, what in audit(base, ends).items()]
    if "dev" in said.runs:
        with ExitStack() as stack:
            runs["dev"] = suite(checkout, folder, "dev", stack.enter_context(dev(folder)), more)
    alone = runs.pop("alone")
    for name, outcomes in runs.items():
        for test in sorted(alone.keys() | outcomes.keys()):
            before, now = alone.get(test, "missing"), outcomes.get(test, "missing")
            if before != now:
                known = (why for start, (where, why) in EXPECTED.items() if name in where and test.startswith(start))
                reason = next(known, None)
                print(f"{name}: {test} is {now}, alone it is {before}" + (f": {reason}" if reason else ""))
                faults += [] if reason else [test]
    counts = {kind: list(alone.values()).count(kind) for kind in sorted(set(alone.values()))}
    if "passed" not in alone.values():
        faults.append("no test passed, not even alone: the suite cannot run here")
    print(f"{len(alone)} tests alone: {counts}; {len(ends)} result records compared with the ledger; {len(faults)} differences")
    print("\n".join(faults))
    if faults:
        raise SystemExit(f"logs are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
