"""What `taskgate.export` writes is a catalog that the gateway takes, with endpoints that check their bodies."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from stack import Stack

HERE = Path(__file__).parent


def run(module, *arguments):
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=HERE, capture_output=True, text=True)
    return done


@pytest.fixture(scope="module")
def catalog():
    done = run("taskgate.export", "exported_app")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_application_is_written_as_a_catalog(catalog):
    import tomllib

    entries = {entry["name"]: entry for entry in tomllib.loads(catalog)["tasks"]}
    assert list(entries) == ["lib.add", "lib.anything", "lib.heavy.order", "lib.odd"]
    add = entries["lib.add"]
    assert (add["summary"], add["description"]) == ("Adds two numbers.", "The second one may be left out.")
    assert (add["endpoint"], add["args"]) == ("POST /tasks/lib.add", ["{x}", "{y}"])
    assert add["body"]["properties"] == {"x": {"type": "integer"}, "y": {"type": "integer", "default": 2}}
    assert add["body"]["required"] == ["x"]
    order = entries["lib.heavy.order"]
    assert (order["queue"], order["priority"], order["time_limit"], order["rate_limit"]) == ("heavy", 3, 60, "10/m")
    assert (order["args"], order["kwargs"]) == (["{order}"], {"how": "{how}", "note": "{note}"})
    address = order["body"]["properties"]["order"]["properties"]["to"]
    assert address["properties"]["zip"]["type"] == "integer" and address["required"] == ["street", "zip"]
    assert order["body"]["properties"]["how"] == {"enum": ["fast", "cheap"], "default": "fast"}
    assert order["body"]["properties"]["note"]["type"] == ["string", "null"]


def test_what_no_catalog_can_say_is_named(catalog):
    assert "# lib.anything: takes *args and **kwargs" in catalog
    assert "# lib.odd: when is left out" in catalog


def test_the_gateway_takes_the_catalog_and_checks_by_it(catalog, tmp_path, binary):
    with Stack(tmp_path, binary) as stack:
        stack.gateway(catalog)
        wrong = httpx.post(f"{stack.url}/tasks/lib.heavy.order", json={"order": {"id": 1, "to": {"street": "a", "zip": "x"}}})
        assert wrong.status_code == 422 and wrong.json()["errors"][0]["pointer"] == "/order/to/zip"
        good = httpx.post(f"{stack.url}/tasks/lib.add", json={"x": 1})
        assert good.status_code == 202
        task = httpx.get(f"{stack.url}/v1/tasks/{good.json()['task_id']}").json()
        assert task["args"] == [1, 2]
        by_name = httpx.post(f"{stack.url}/v1/tasks", json={"task": "lib.add", "kwargs": {"x": 1}})
        assert by_name.status_code == 202, "Python passes an argument by place or by name"


def test_a_strict_catalog_judges_calls_by_name_too(tmp_path, binary):
    with Stack(tmp_path, binary) as stack:
        stack.gateway(run("taskgate.export", "exported_app", "--strict").stdout)
        call = {"task": "lib.add", "args": ["one"]}
        refused = httpx.post(f"{stack.url}/v1/tasks", json=call)
        assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/args/0"


def test_the_settings_of_an_application_are_explained():
    done = run("taskgate.check", "exported_app", "--json")
    found = {finding["setting"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["task_serializer"]["weight"] == "ok"
    assert "lib.odd" in found["broker_transport_options.visibility_timeout"]["text"]
    assert found["task_routes"]["weight"] == "note"


@pytest.mark.parametrize(
    ("setting", "value", "weight", "word"),
    [
        ("task_serializer", "pickle", "problem", "set it to 'json'"),
        ("result_serializer", "pickle", "warning", "set it to 'json'"),
        ("result_serializer", "yaml", "note", "become JSON"),
        ("accept_content", ["pickle"], "problem", "lacks 'json'"),
        ("broker_url", "sqs://", "problem", "sqs"),
        ("result_expires", 60, "warning", "60 s"),
        ("task_always_eager", True, "warning", "nothing is sent"),
        ("task_default_queue", "mail", "note", 'broker.default_queue = "mail"'),
        ("result_backend", None, "warning", "no return values"),
    ],
)
def test_a_setting_that_matters_is_found(setting, value, weight, word, monkeypatch):
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    monkeypatch.delenv("CELERY_RESULT_BACKEND", raising=False)
    from celery import Celery

    from taskgate.check import findings

    app = Celery("x", broker="redis://", backend="redis://", set_as_current=False)
    if setting == "result_backend":
        app = Celery("x", broker="redis://", set_as_current=False)
    else:
        setattr(app.conf, setting, value)
    found = [finding for finding in findings(app) if finding.setting == setting]
    assert any(finding.weight == weight and word in finding.text for finding in found), found


def test_options_of_the_transport_are_written_as_the_gateway_s_keys(tmp_path, binary):
    from celery import Celery

    from taskgate.check import findings

    options = {"global_keyprefix": "shop:", "priority_steps": [0, 5, 9], "sep": ":", "visibility_timeout": 7200}
    app = Celery("x", broker="redis://", backend="redis://", set_as_current=False)
    app.conf.broker_transport_options = options
    told = [finding.text for finding in findings(app)]
    lines = sorted(text.split("write ")[1] for text in told if "write broker." in text)
    assert lines == [
        'broker.global_keyprefix = "shop:"', "broker.priority_steps = [0, 5, 9]", 'broker.sep = ":"', "broker.visibility_timeout = 7200",
    ]
    with Stack(tmp_path, binary) as stack:
        stack.gateway("\n".join(lines) + "\n")


def test_install_refuses_pickle_with_the_setting_to_change():
    from celery import Celery

    import taskgate
    from taskgate.celery.settings import WrongSetting

    app = Celery("x", broker="redis://", set_as_current=False)
    app.conf.task_serializer = "pickle"
    with pytest.raises(WrongSetting, match="task_serializer = 'json'"):
        taskgate.install(app, "http://127.0.0.1:1")
    app.conf.task_serializer, app.conf.accept_content = "json", ["pickle"]
    with pytest.raises(WrongSetting, match="accept_content"):
        taskgate.install(app, "http://127.0.0.1:1")


def test_an_application_that_is_not_there_is_a_sentence():
    done = run("taskgate.check", "no_such_app")
    assert done.returncode != 0 and "there is no Celery application" in done.stderr
    assert "Traceback" not in done.stderr
