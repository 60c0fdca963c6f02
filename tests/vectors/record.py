"""Records what a real Celery writes into Redis, in the form of the vectors beside this file.

    .venv/celery-older/bin/python tests/vectors/record.py tests/vectors/celery-5.4 [case ...]

Starts its own redis-server and workers, so nothing else may be running and nothing stays behind. What is recorded is
what MONITOR shows between two markers; connection set-up, idle BRPOP and queue-length reads are left out, and paths
of this machine become /app and /venv, inside base64 bodies too.
"""
import base64
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
SILENT = {"HELLO", "CLIENT", "SELECT", "PING", "AUTH", "INFO", "LLEN", "BRPOP", "MONITOR", "COMMAND", "SCRIPT",
          "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "ECHO"}


def connect(redis, port):
    """A client with one connection, so that the recorder's own commands can be told from the others."""
    try:
        client = redis.Redis(port=port, single_connection_client=True)
        return client.ping() and client
    except redis.ConnectionError:
        return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- MONITOR -----------------------------------------------------------------

def unquote(line):
    """The words of one MONITOR line, which quotes like C does."""
    words, word, i, inside = [], bytearray(), 0, False
    plain = {"n": 10, "r": 13, "t": 9, "a": 7, "b": 8}
    while i < len(line):
        char = line[i]
        if not inside:
            inside, word = char == '"', bytearray()
        elif char == "\\" and line[i + 1] == "x":
            word.append(int(line[i + 2:i + 4], 16))
            i += 3
        elif char == "\\":
            word.append(plain.get(line[i + 1], ord(line[i + 1])))
            i += 1
        elif char == '"':
            words.append(bytes(word))
            inside = False
        else:
            word += char.encode()
        i += 1
    return words


class Monitor(threading.Thread):
    """Every command the server saw, in its order, with the process it came from."""

    def __init__(self, port, owners):
        super().__init__(daemon=True)
        self.seen, self.owners, self.names = [], owners, {}
        self.changed = threading.Condition()
        self.stream = socket.create_connection(("127.0.0.1", port))
        self.stream.sendall(b"MONITOR\r\n")
        self.lines = self.stream.makefile("r", encoding="ascii", newline="\r\n")
        self.lines.readline()
        self.start()

    def run(self):
        for line in self.lines:
            at, _, rest = line[1:].partition(" [")
            source, _, command = rest.partition("] ")
            entry = (float(at), self.owner(source.split(" ", 1)[1]), unquote(command))
            with self.changed:
                self.seen.append(entry)
                self.changed.notify_all()

    def owner(self, source):
        if source not in self.names:
            name = "lua" if source == "lua" else self.owners.find(int(source.rsplit(":", 1)[1]))
            if name == "?":
                return name
            self.names[source] = name
        return self.names[source]

    def mark(self, redis):
        """A position in the log that everything sent so far lies before."""
        token = uuid.uuid4().hex.encode()
        redis.echo(token)
        with self.changed:
            found = self.changed.wait_for(lambda: self.position(token) is not None, timeout=10)
            assert found, "MONITOR fell silent"
            return self.position(token)

    def position(self, token):
        for index in range(len(self.seen) - 1, -1, -1):
            if self.seen[index][2][1:2] == [token]:
                return index
        return None


class Owners:
    """Finds the process behind a client port, by the inode of its socket."""

    def __init__(self):
        self.workers = {}

    def find(self, port):
        inode = self.inode(port)
        if inode is None:
            return "?"
        for name, pid in self.workers.items():
            if self.holds(pid, inode):
                return f"{name}:main"
            for child in self.children(pid):
                if self.holds(child, inode):
                    return f"{name}:pool"
        return "client" if self.holds(os.getpid(), inode) else "?"

    @staticmethod
    def inode(port):
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            cells = row.split()
            if int(cells[1].split(":")[1], 16) == port:
                return cells[9]
        return None

    @staticmethod
    def holds(pid, inode):
        for fd in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                if os.readlink(fd) == f"socket:[{inode}]":
                    return True
            except OSError:
                continue  # closed meanwhile, often the very descriptor that lists the folder
        return False

    @staticmethod
    def children(pid):
        try:
            return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return []


# -- processes ---------------------------------------------------------------

class Stage:
    """A redis-server, the fixture application of this process, and workers on demand."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="record-")
        shutil.copy(HERE / "fixture.py", self.directory)
        self.port = free_port()
        self.processes = [subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory],
            stdout=subprocess.DEVNULL)]
        os.environ["FIXTURE_REDIS_URL"] = f"redis://127.0.0.1:{self.port}/0"
        import redis
        self.redis = eventually(lambda: connect(redis, self.port))
        sys.path.insert(0, self.directory)
        import fixture
        self.fixture, self.app, self.owners = fixture, fixture.app, Owners()
        self.monitor = Monitor(self.port, self.owners)
        own_port = self.redis.connection._sock.getsockname()[1]
        self.monitor.names[f"127.0.0.1:{own_port}"] = "ignored"

    def worker(self, name, queues):
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "fixture", "worker", "-E", "-c", "2", "-l", "WARNING",
             "-n", f"{name}@fixture", "-Q", queues], cwd=self.directory,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        self.owners.workers[name] = process.pid
        eventually(lambda: self.app.control.ping([f"{name}@fixture"], timeout=0.5), deadline=30)
        return process

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(20)
        shutil.rmtree(self.directory)


def eventually(fact, deadline=10):
    until = time.monotonic() + deadline
    while not (value := fact()):
        assert time.monotonic() < until, f"not in {deadline} s: {fact}"
        time.sleep(0.02)
    return value


# -- turning a log into a vector -----------------------------------------------

def scrub(text, directory):
    """Machine paths become neutral; an envelope's base64 body is opened for it."""
    def inside(value):
        if isinstance(value, str):
            return value.replace(directory, "/app").replace(sys.prefix, "/venv").replace(sys.base_prefix, "/python")
        if isinstance(value, list):
            return [inside(item) for item in value]
        if isinstance(value, dict):
            changed = {key: inside(item) for key, item in value.items()}
            if "body" in value and value.get("properties", {}).get("body_encoding") == "base64":
                body = json.dumps(inside(json.loads(base64.b64decode(value["body"]))))
                changed["body"] = base64.b64encode(body.encode()).decode()
            return changed
        return value

    if text[:1] not in "{[":
        return inside(text)
    try:
        return json.dumps(inside(json.loads(text)))
    except ValueError:
        return inside(text)


def readable(word, directory):
    try:
        return scrub(word.decode(), directory)
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(word).decode()


def shown(command):
    name = command[0].upper().decode()
    if name in SILENT:
        return False
    return not (name == "PUBLISH" and command[1].endswith(b".celeryev/worker.heartbeat"))


def commands(stage, first, last):
    rows, start = [], None
    for at, by, command in stage.monitor.seen[first + 1:last]:
        if by == "ignored" or not shown(command):
            continue
        start = start or at
        rows.append({"t": round(at - start, 3), "by": by,
                     "cmd": [readable(word, stage.directory) for word in command]})
    return without_empty_transactions(rows)


def without_empty_transactions(rows):
    """A transaction of queue-length reads only, which are left out, is left out as well."""
    kept = []
    for row in rows:
        before = kept[-1] if kept else None
        if row["cmd"] == ["EXEC"] and before and before["cmd"] == ["MULTI"] and before["by"] == row["by"]:
            kept.pop()
        else:
            kept.append(row)
    return kept


def decoded(rows):
    messages = []
    for row in rows:
        name = row["cmd"][0].upper()
        if name not in ("LPUSH", "RPUSH", "PUBLISH"):
            continue
        try:
            envelope = json.loads(row["cmd"][2])
            body = json.loads(base64.b64decode(envelope.pop("body")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a result or a counter, not a message
        messages.append({"in": row["cmd"][:2], "by": row["by"], "envelope_without_body": envelope, "body": body})
    return messages


def versions(stage):
    import celery
    import kombu
    import redis
    return {"celery": celery.__version__, "kombu": kombu.__version__,
            "redis_server": stage.redis.info("server")["redis_version"], "redis_py": redis.__version__,
            "python": platform.python_version()}


class Recorder:
    def __init__(self, stage, out, only):
        self.stage, self.out, self.only, self.versions = stage, Path(out), only, versions(stage)
        self.out.mkdir(parents=True, exist_ok=True)

    def wanted(self, name):
        return not self.only or name in self.only

    def save(self, name, description, fields):
        vector = {"name": name, "description": description, "versions": self.versions, **fields}
        (self.out / f"{name}.json").write_text(json.dumps(vector, indent=1) + "\n")
        print(f"recorded {name}")

    def between(self, action, settle=0.0):
        """Runs `action`; what MONITOR saw meanwhile, and what it returned."""
        first = self.stage.monitor.mark(self.stage.redis)
        value = action()
        if settle:
            time.sleep(settle)  # events trail the result by a moment, and no key tells when the last one is out
        rows = commands(self.stage, first, self.stage.monitor.mark(self.stage.redis))
        return rows, value

    def message(self, name, description, action, describe=None):
        if self.wanted(name):
            rows, value = self.between(action)
            extra = describe(value) if describe else {"result_id": value.id}
            self.save(name, description, {**extra, "commands": rows, "decoded_messages": decoded(rows)})

    def result(self, name, description, action, done):
        if not self.wanted(name):
            return
        rows, task_id = self.between(lambda: self.finish(action(), done), settle=0.3)
        key = f"celery-task-meta-{task_id}"
        stored = self.stage.redis.get(key)
        writes = [{"t": row["t"], "by": row["by"], "cmd": row["cmd"][0],
                   "ttl": int(row["cmd"][2]) if row["cmd"][0] == "SETEX" else None, "value": row["cmd"][-1]}
                  for row in rows if row["cmd"][0] in ("SETEX", "PUBLISH") and row["cmd"][1] == key]
        self.save(name, description, {
            "task_id": task_id, "stored_key": key,
            "stored_value": stored and scrub(stored.decode(), self.stage.directory),
            "stored_ttl": self.stage.redis.ttl(key) if stored else None,
            "meta_writes": writes, "commands": rows, "decoded_messages": decoded(rows)})

    def finish(self, task_id, done):
        key = f"celery-task-meta-{task_id}"

        def ended():
            raw = self.stage.redis.get(key)
            return raw and json.loads(raw)["status"] in done
        if done:
            eventually(ended, deadline=20)
        else:
            self.event_seen(task_id)
        return task_id

    def event_seen(self, task_id):
        """For a task that stores nothing: it is over when its succeeded event is out."""
        def over():
            return any(event.get("uuid") == task_id and event["type"] in ("task-succeeded", "task-failed")
                       for event, _, _, _ in self.events())
        eventually(over)

    def control(self, name, description, action):
        if self.wanted(name):
            rows, reply = self.between(action)
            rows = [row for row in rows if not any("/0.celeryev/" in word for word in row["cmd"][1:2])]
            reply = json.loads(scrub(json.dumps(reply), self.stage.directory))
            self.save(name, description, {"reply": reply, "commands": rows, "decoded_messages": decoded(rows)})

    def events(self):
        """Every event seen so far with its channel, raw message and batch size."""
        for _, _, command in list(self.stage.monitor.seen):
            if command[0].upper() != b"PUBLISH" or b".celeryev/" not in command[1]:
                continue
            raw = readable(command[2], self.stage.directory)
            body = json.loads(base64.b64decode(json.loads(raw)["body"]))
            batch = body if isinstance(body, list) else [body]
            for event in batch:
                yield event, command[1].decode(), raw, len(batch)

    def event(self, name, kind, description, test=lambda event: True):
        if not self.wanted(name):
            return
        for event, channel, raw, size in self.events():
            if event["type"] == kind and test(event):
                note = f" Captured inside a batch of {size}." if size > 1 else ""
                self.save(name, description + note, {"channel": channel, "raw": raw, "decoded": event})
                return
        raise AssertionError(f"no {kind} was seen")


# -- the cases -----------------------------------------------------------------

def messages(recorder, fx):
    from celery import chain, chord, group
    fx.noop.delay()  # declares the queue, so that no vector shows it
    say = recorder.message
    say("task_plain", "add.delay(2, 3): the ordinary task message. Queue declared before.", lambda: fx.add.delay(2, 3))
    say("task_kwargs", "Keyword arguments, unicode, nested values.",
        lambda: fx.echo.apply_async((1, "é☃", None, True, 1.5), {"k": {"list": [1, {"a": "ü"}]}, "n": None}))
    say("task_countdown", "countdown=60 becomes headers.eta.", lambda: fx.add.apply_async((1, 1), countdown=60))
    say("task_expires_seconds", "expires=30 becomes headers.expires and properties.expiration.",
        lambda: fx.add.apply_async((1, 1), expires=30))
    say("task_priority", "One message per priority 0..9: shows the list key each one lands in.",
        lambda: [fx.add.apply_async((n, n), priority=n) for n in range(10)], lambda _: {})
    say("task_time_limits", "soft_time_limit=5, time_limit=10: timelimit is [hard, soft].",
        lambda: fx.add.apply_async((1, 1), soft_time_limit=5, time_limit=10))
    say("task_ignore_result", "ignore_result=True on the call.",
        lambda: fx.add.apply_async((1, 1), ignore_result=True))
    say("task_custom_queue", "queue=\"emails\": declares the queue, then sends.",
        lambda: fx.add.apply_async((1, 1), queue="emails"))
    say("task_shadow_and_headers", "shadow name and custom headers.",
        lambda: fx.add.apply_async((1, 1), shadow="fx.shadow", headers={"x-trace": "abc", "n": 1}))
    say("link", "add.apply_async(link=mul.s(10)).", lambda: fx.add.apply_async((2, 2), link=fx.mul.s(10)))
    say("link_error", "fail.apply_async(link_error=on_err_id.s()).",
        lambda: fx.fail.apply_async(("x",), link_error=fx.on_err_id.s()))
    say("chain_two", "chain(add.s(2, 2), mul.s(10)).", lambda: chain(fx.add.s(2, 2), fx.mul.s(10))())
    say("chain_three", "chain(add.s(2, 2), mul.s(10), add.s(1)): later steps stand reversed.",
        lambda: chain(fx.add.s(2, 2), fx.mul.s(10), fx.add.s(1))())
    say("group_two", "group(add.s(1, 1), add.s(2, 2)): two independent messages sharing headers.group.",
        lambda: group(fx.add.s(1, 1), fx.add.s(2, 2))(),
        lambda it: {"group_id": it.id, "children": [child.id for child in it.children], "as_tuple": it.as_tuple()})
    say("chord_two", "chord([add.s(1, 1), add.s(2, 2)])(xsum.s()).",
        lambda: chord([fx.add.s(1, 1), fx.add.s(2, 2)])(fx.xsum.s()),
        lambda it: {"body_result_id": it.id, "header_group_id": it.parent.id,
                    "header_ids": [child.id for child in it.parent.children]})
    say("chord_in_chain", "chain(add, chord, add).",
        lambda: chain(fx.add.s(1, 1), chord([fx.add.s(1), fx.add.s(2)], fx.xsum.s()), fx.add.s(5))())
    say("chain_group_task", "chain(add, group, xsum): the group and the task become a chord.",
        lambda: chain(fx.add.s(1, 1), group(fx.add.s(1), fx.add.s(2)), fx.xsum.s())())
    recorder.stage.redis.flushall()


def results(recorder, fx):
    say, over = recorder.result, {"SUCCESS", "FAILURE", "REVOKED"}
    say("trace_success", "Every command of one successful task, acks early.", lambda: fx.add.delay(2, 3).id, over)
    say("result_success_null", "Task returning None.", lambda: fx.noop.delay().id, over)
    say("result_failure", "ValueError('boom').", lambda: fx.fail.delay("boom").id, over)
    say("result_progress", "update_state(state=\"PROGRESS\", meta=...) three times, then SUCCESS.",
        lambda: fx.progress.delay(3, 0.05).id, over)
    say("result_retry", "Manual retry, countdown=1, succeeds on the second attempt.",
        lambda: fx.retry_manual.delay(1, 1).id, over)
    say("result_retry_exhausted", "Manual retry beyond max_retries=2.",
        lambda: fx.retry_manual.delay(9, 0.3).id, over)
    say("result_ignored", "ignore_result: nothing is stored or published.", lambda: fx.ignored.delay(1).id, None)
    say("result_raise_ignore", "update_state(MINE), then Ignore.", lambda: fx.raise_ignore.delay().id, {"MINE"})
    say("result_children", "A task that sends two others.", lambda: fx.spawn.delay(2).id, over)
    say("result_soft_limit", "SoftTimeLimitExceeded.", lambda: fx.slow.delay().id, over)
    say("result_hard_limit", "TimeLimitExceeded.", lambda: fx.slow.delay(5, True).id, over)
    say("result_worker_lost", "The pool process is killed.", lambda: fx.die.delay().id, over)
    say("result_unregistered", "A task no worker knows.", lambda: recorder.stage.app.send_task("fx.unknown").id, over)
    say("result_expired", "expires in the past.", lambda: fx.add.apply_async((1, 1), expires=-10).id, over)

    def revoked():
        task_id = uuid.uuid4().hex
        recorder.stage.app.control.revoke(task_id)
        time.sleep(0.5)  # a broadcast has no answer here; the worker must know the id before the message comes
        return fx.add.apply_async((1, 1), task_id=task_id).id
    say("result_revoked", "Revoked by id before arrival.", revoked, over)

    def terminated():
        task_id = fx.sleepy.delay(30).id
        eventually(lambda: any(event["type"] == "task-started" and event["uuid"] == task_id
                               for event, _, _, _ in recorder.events()))
        recorder.stage.app.control.revoke(task_id, terminate=True)
        return task_id
    say("result_terminated", "Revoked with terminate while it runs.", terminated, over)


def canvases(recorder, fx):
    from celery import chain, chord, group
    say, over = recorder.result, {"SUCCESS", "FAILURE"}
    say("run_chain", "chain(add, mul) run to its end.", lambda: chain(fx.add.s(2, 2), fx.mul.s(10))().id, over)
    say("run_chord", "chord of two run to its end: part returns.",
        lambda: chord([fx.add.s(1, 1), fx.add.s(2, 2)])(fx.xsum.s()).id, over)
    say("run_chord_fail", "One header task fails.",
        lambda: chord([fx.add.s(1, 1), fx.fail.s("x")])(fx.xsum.s()).id, over)
    say("run_chain_group_task", "chain(add, group, xsum) run to its end.",
        lambda: chain(fx.add.s(1, 1), group(fx.add.s(1), fx.add.s(2)), fx.xsum.s())().id, over)


def events(recorder):
    say = recorder.event
    say("event_worker_online", "worker-online", "Event worker-online.")
    say("event_worker_heartbeat", "worker-heartbeat", "Event worker-heartbeat.")
    say("event_worker_offline", "worker-offline", "Event worker-offline.")
    say("event_task_received", "task-received", "Event task-received.")
    say("event_task_started", "task-started", "Event task-started.")
    say("event_task_succeeded", "task-succeeded", "Event task-succeeded.")
    say("event_task_failed", "task-failed", "Event task-failed.")
    say("event_task_retried", "task-retried", "Event task-retried.")
    say("event_task_revoked_by_id", "task-revoked", "Event task-revoked: by id, before it ran.",
        lambda event: not event["terminated"] and not event["expired"])
    say("event_task_revoked_expired", "task-revoked", "Event task-revoked: expired.", lambda event: event["expired"])
    say("event_task_revoked_terminated", "task-revoked", "Event task-revoked: terminated.",
        lambda event: event["terminated"])


def controls(recorder, fx):
    app, say = recorder.stage.app, recorder.control

    def inspect(method):
        return lambda: app.control.broadcast(method, reply=True, timeout=2)
    running = fx.sleepy.apply_async((6,))
    later = fx.add.apply_async((1, 1), countdown=600)
    eventually(lambda: any(app.control.broadcast("active", reply=True, timeout=1)[0].values()))
    say("control_ping", "broadcast(\"ping\", reply=True), in full.", inspect("ping"))
    say("control_inspect_active", "inspect active with one task running.", inspect("active"))
    say("control_inspect_reserved", "inspect reserved.", inspect("reserved"))
    say("control_inspect_scheduled", "inspect scheduled with one ETA task.", inspect("scheduled"))
    say("control_inspect_stats", "inspect stats.", inspect("stats"))
    say("control_inspect_registered", "inspect registered.", inspect("registered"))
    say("control_inspect_active_queues", "inspect active_queues.", inspect("active_queues"))
    say("control_inspect_clock", "inspect clock.", inspect("clock"))
    say("control_revoke_one", "revoke one id (no terminate) of a scheduled task; with reply.",
        lambda: app.control.revoke(later.id, reply=True, timeout=2))
    say("control_revoke_noreply", "revoke an unknown id, fire and forget.",
        lambda: (app.control.revoke(uuid.uuid4().hex), time.sleep(0.5))[0])
    say("control_revoke_terminate", "revoke with terminate of a running task; with reply.",
        lambda: app.control.revoke(running.id, terminate=True, reply=True, timeout=2))
    say("control_inspect_revoked", "inspect revoked.", inspect("revoked"))
    say("control_rate_limit", "rate_limit fx.add 10/m.",
        lambda: app.control.rate_limit("fx.add", "10/m", reply=True, timeout=2))
    say("control_add_consumer", "add_consumer extra.",
        lambda: app.control.add_consumer("extra", reply=True, timeout=2))
    say("control_cancel_consumer", "cancel_consumer extra.",
        lambda: app.control.cancel_consumer("extra", reply=True, timeout=2))
    say("control_enable_events", "enable_events on workers that send them already.",
        lambda: app.control.enable_events(reply=True, timeout=2))
    say("control_unknown", "An unknown method.", inspect("no_such_method"))


def main(out, *only):
    stage = Stage()
    try:
        recorder = Recorder(stage, out, set(only))
        messages(recorder, stage.fixture)
        first = stage.worker("w1", "celery")
        results(recorder, stage.fixture)
        canvases(recorder, stage.fixture)
        stage.worker("w2", "celery,emails")
        controls(recorder, stage.fixture)
        first.terminate()
        first.wait(20)
        stage.monitor.mark(stage.redis)
        events(recorder)
    finally:
        stage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # Celery's result objects would look for the server that has just been stopped
