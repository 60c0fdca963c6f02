"""Records what a real Celery sends to RabbitMQ: tasks, events, remote control and `rpc://` results.

    .venv/celery-latest/bin/python tests/vectors/record_amqp.py tests/vectors/celery-5.7/amqp [case ...]

Starts its own rabbitmq-server and workers. A queue of the recorder's own is bound beside (or stands in for) every queue a
message goes to, so each vector is one message as the server hands it out: exchange, routing key, properties, headers, body.
`topology.json` lists the exchanges and queues that workers and clients declared, with their arguments.
"""
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER = "/usr/lib/rabbitmq/bin"
TAPS = {"events": ("celeryev", "#"), "requests": ("celery.pidbox", "")}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(fact, deadline=20):
    until = time.monotonic() + deadline
    while not (value := fact()):
        assert time.monotonic() < until, f"not in {deadline} s: {fact}"
        time.sleep(0.05)
    return value


class Node:
    """One RabbitMQ in a folder of its own, with a port mapper of its own."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="record-"))
        self.port, ports = free_port(), [str(free_port()), str(free_port())]
        (self.folder / "home").mkdir()
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        (self.folder / "plugins").write_text("[].\n")
        self.environment = os.environ | {
            "HOME": f"{self.folder}/home", "RABBITMQ_NODENAME": f"record{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": ports[0], "ERL_EPMD_PORT": ports[1],
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": f"{self.folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{self.folder}/log", "RABBITMQ_CONFIG_FILE": f"{self.folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.folder}/plugins"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        self.processes = [
            subprocess.Popen(["epmd", "-port", ports[1], "-address", "127.0.0.1"], **quiet),
            subprocess.Popen([f"{SERVER}/rabbitmq-server"], env=self.environment, **quiet)]

    def list(self, what, *columns):
        command = [f"{SERVER}/rabbitmqctl", "-q", "--formatter", "json", what, *columns]
        return json.loads(subprocess.run(command, env=self.environment, check=True, capture_output=True).stdout)

    def close(self):
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        shutil.rmtree(self.folder)


class Tap:
    """Reads raw messages over a connection of its own."""

    def __init__(self, port):
        import amqp
        self.amqp = amqp
        self.connection = eventually(lambda: self.connect(port), 60)
        self.channel = self.connection.channel()
        self.declared = set()

    def connect(self, port):
        try:
            connection = self.amqp.Connection(f"127.0.0.1:{port}")
            connection.connect()
            return connection
        except OSError:
            return None

    def bind(self, name):
        exchange, key = TAPS[name]
        self.channel.queue_declare(f"tap.{name}", auto_delete=False)
        self.channel.queue_bind(f"tap.{name}", exchange, key)

    def take(self, queue):
        return self.channel.basic_get(queue, no_ack=True)

    def declare(self, queue):
        self.channel.queue_declare(queue, durable=True, auto_delete=False)


def scrub(value, folder):
    if isinstance(value, str):
        for path, name in ((folder, "/app"), (sys.prefix, "/venv"), (sys.base_prefix, "/python")):
            value = value.replace(str(path), name)
    elif isinstance(value, list):
        value = [scrub(item, folder) for item in value]
    elif isinstance(value, dict):
        value = {key: scrub(item, folder) for key, item in value.items()}
    return value


class Recorder:
    def __init__(self, out, only):
        self.out, self.only, self.node = Path(out), only, Node()
        self.out.mkdir(parents=True, exist_ok=True)
        self.tap = Tap(self.node.port)
        os.environ["FIXTURE_REDIS_URL"] = url = f"amqp://guest:guest@127.0.0.1:{self.node.port}//"
        shutil.copy(HERE / "fixture.py", self.node.folder)
        sys.path.insert(0, str(self.node.folder))
        source = (self.node.folder / "fixture.py").read_text()
        # The fixture's application with results over RabbitMQ.
        (self.node.folder / "fixture.py").write_text(source.replace("backend=URL", 'backend="rpc://"'))
        import fixture
        self.fixture, self.app, self.url = fixture, fixture.app, url
        self.worker = None

    def start_worker(self):
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "fixture", "worker", "-E", "-c", "1", "-l", "WARNING",
             "-n", "w1@fixture", "-Q", "celery"], cwd=self.node.folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: self.app.control.ping(["w1@fixture"], timeout=1), 60)
        for name in TAPS:
            self.tap.bind(name)

    def versions(self):
        import amqp
        import celery
        import kombu
        return {"celery": celery.__version__, "kombu": kombu.__version__, "amqp": amqp.__version__,
                "python": platform.python_version()}

    def save(self, name, description, fields):
        if not self.only or name in self.only:
            vector = {"name": name, "description": description, "versions": self.versions(), **fields}
            text = json.dumps(scrub(vector, self.node.folder), indent=1)
            (self.out / f"{name}.json").write_text(text + "\n")
            print(f"recorded {name}")

    def message(self, message):
        info, properties = message.delivery_info, dict(message.properties)
        headers = properties.pop("application_headers", {})
        body = message.body if isinstance(message.body, str) else message.body.decode()
        return {"exchange": info["exchange"], "routing_key": info["routing_key"], "redelivered": info["redelivered"],
                "properties": properties, "headers": headers, "body": body}

    def task(self, name, description, send):
        result = send()
        message = eventually(lambda: self.tap.take("tasks"))
        self.save(name, description, {"result_id": result.id, "message": self.message(message)})

    def found(self, queue, test):
        def look():
            while message := self.tap.take(queue):
                if test(message):
                    return message
            return None
        return eventually(look)

    def close(self):
        if self.worker:
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait(20)
        self.node.close()


def tasks(recorder):
    fx, say = recorder.fixture, recorder.task
    recorder.tap.declare("tasks")
    from celery import chain
    to = {"queue": "tasks"}
    say("task_plain", "add.apply_async((2, 3)): the ordinary message.", lambda: fx.add.apply_async((2, 3), **to))
    say("task_kwargs", "Keyword arguments, unicode, nested values.",
        lambda: fx.echo.apply_async(("é☃", None, True, 1.5), {"k": {"list": [1, {"a": "ü"}]}, "n": None}, **to))
    say("task_priority", "priority=7: the property, as it was given.", lambda: fx.add.apply_async((1, 1), priority=7, **to))
    say("task_expires_seconds", "expires=30: headers.expires and the property expiration.",
        lambda: fx.add.apply_async((1, 1), expires=30, **to))
    say("task_countdown", "countdown=60: headers.eta.", lambda: fx.add.apply_async((1, 1), countdown=60, **to))
    say("task_shadow_and_headers", "shadow name, custom headers.",
        lambda: fx.add.apply_async((1, 1), shadow="fx.shadow", headers={"x-trace": "abc", "n": 1}, **to))
    say("chain_two", "chain(add, mul): the second step is in the body.",
        lambda: chain(fx.add.s(2, 2).set(queue="tasks"), fx.mul.s(10).set(queue="tasks"))())


def results(recorder):
    """A reply queue of the recorder's own, as a foreign producer names it."""
    recorder.tap.declare("replies")
    amqp, fx = recorder.tap.amqp, recorder.fixture
    cases = {"rpc_success": ("fx.add", [2, 3]), "rpc_failure": ("fx.fail", ["boom"])}
    for number, (name, (task, args)) in enumerate(cases.items(), 1):
        identity = f"00000000-0000-4000-8000-{number:012d}"
        body = json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
        recorder.tap.channel.basic_publish(amqp.Message(
            body, content_type="application/json", content_encoding="utf-8", delivery_mode=2, reply_to="replies",
            correlation_id=identity, application_headers={"task": task, "id": identity}), "", "celery")
        wanted = "SUCCESS" if name == "rpc_success" else "FAILURE"
        message = recorder.found("replies", lambda m, wanted=wanted: json.loads(m.body)["status"] == wanted)
        recorder.save(name, f"{task} with reply_to: the record as a message.",
                      {"task_id": identity, "message": recorder.message(message)})
        kinds = {"rpc_success": ("task-received", "task-succeeded"), "rpc_failure": ("task-failed",)}[name]
        for kind in kinds:
            seen = recorder.found("tap.events", lambda m, kind=kind: f'"{kind}"' in m.body and identity in m.body)
            recorder.save("event_" + kind.replace("-", "_"), f"{kind} as it goes through celeryev.",
                          {"message": recorder.message(seen)})


def control(recorder):
    seen = recorder.found("tap.events", lambda m: "worker-heartbeat" in m.body)
    recorder.save("event_worker_heartbeat", "A heartbeat.", {"message": recorder.message(seen)})
    recorder.app.control.broadcast("ping", reply=True, timeout=1)
    request = recorder.found("tap.requests", lambda m: '"ping"' in m.body)
    recorder.save("control_ping", "ping with a reply wanted.", {"message": recorder.message(request)})
    # A reply to a queue of our own, through the default exchange.
    recorder.tap.declare("answers")
    amqp = recorder.tap.amqp
    body = json.dumps({"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None,
                       "ticket": "t-1", "reply_to": {"exchange": "", "routing_key": "answers"}})
    recorder.tap.channel.basic_publish(amqp.Message(
        body, content_type="application/json", content_encoding="utf-8", application_headers={"clock": 1}),
        "celery.pidbox", "")
    try:
        answer = recorder.found("answers", lambda _: True)
        recorder.save("control_reply_anonymous", "The reply to a queue named through the default exchange.",
                      {"message": recorder.message(answer)})
    except AssertionError:
        print("no anonymous reply: the worker declares the exchange that it replies to")


def topology(recorder):
    exchanges = recorder.node.list("list_exchanges", "name", "type", "durable", "auto_delete", "internal", "arguments")
    queues = recorder.node.list("list_queues", "name", "durable", "auto_delete", "exclusive", "arguments")
    ours = lambda name: name and not name.startswith("amq.") and not name.startswith("tap.")
    recorder.save("topology", "What a worker and a client declared.", {
        "exchanges": sorted((row for row in exchanges if ours(row["name"])), key=lambda row: row["name"]),
        "queues": sorted((row for row in queues if ours(row["name"])), key=lambda row: row["name"])})


def main():
    out, *only = sys.argv[1:]
    recorder = Recorder(out, set(only))
    try:
        tasks(recorder)
        recorder.start_worker()
        results(recorder)
        control(recorder)
        topology(recorder)
    finally:
        recorder.close()


if __name__ == "__main__":
    main()
