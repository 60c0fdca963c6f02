"""Writes the first inputs of fuzz/corpus: messages of a real Celery from tests/vectors, and a few written by hand.

Running it again changes nothing, because a file is named by its content. Keeps at most MOST inputs of a kind, the shortest of each vector
first.
"""

import hashlib
import json
import pathlib

MOST = 25
ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"

BY_HAND = {
    "submission": [
        '{"task": "tasks.add", "args": [2, 3]}',
        '{"task": "t", "kwargs": {"a": 12345678901234567890.50}, "countdown": 1.5, "priority": 9, "queue": "q"}',
        '{"chain": [{"task": "a"}, {"group": [{"task": "b"}, {"task": "c"}]}, {"task": "d", "link_error": [{"task": "e"}]}]}',
        '{"chord": {"header": [{"task": "a"}, {"task": "b"}], "body": {"task": "c", "immutable": true}}, "labels": {"k": "v"}}',
        '{"task": "t", "unique": {"key": "k", "while": "active"}, "limits": [{"key": "host:a", "max": 2}], "retry": {"max": 3}}',
        '{"task": "t", "webhooks": [{"url": "https://example.org/x", "on": ["success"]}], "eta": "2026-11-20T18:00:00Z"}',
        '{"tasks": [{"task": "a"}, {"task": "b"}]}',
        '{"header": [{"task": "a"}], "body": {"task": "b"}}',
    ],
    "schedule": [
        '{"task": "t", "cron": "*/5 * * * *", "timezone": "Asia/Seoul"}',
        '{"task": "t", "every": 30, "jitter": 5, "catch_up": "all", "overlap": "skip"}',
        '{"task": "t", "at": "2027-01-01T00:00:00Z", "args": [1]}',
        '{"chain": [{"task": "a"}, {"task": "b"}], "cron": "0 9-17 * * mon-fri"}',
    ],
    "cron": ["* * * * *", "*/15 0-6/2 1,15 * mon-fri", "0 0 29 2 *", "5 4 * jan,jul sun", "@daily", "59 23 31 12 *"],
    "cursor": ["AAAAAAAAAAf2hXMd", "", "_____________w", "bmFtZTEyMzQ", "tampered"],
    "query": [
        "limit=50&status=SUCCESS,FAILURE&task=tasks.add",
        "from=2026-11-20T18:17:30Z&to=2026-11-21T00:00:00%2B09:00&label=a:b&label=c:d",
        "q=%EB%B4%89%EC%82%AC&cursor=AAAA&phase=held",
        "destination=a@b&timeout=1.5&ids=1,2",
        "measure=run&step=60&group=task",
        "%ff=%zz&&=&a",
    ],
    "template": ['"{category}"', '["{a}", "x {b} y", {"k": "{{}}"}]', '"{"', "POST /run-crawler/{category}", "tasks.*", '{"{x}": "{x}"}'],
    "resp_request": [
        "*1\r\n$4\r\nPING\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        'set "a b" \'c\'\r\n',
        "*2147483647\r\n$536870912\r\n",
        "*-1\r\n*0\r\n$5\r\n",
    ],
    "saved_group": [
        '{"result": [["g", null], [[["a", null], null], [["b", null], null]]]}',
        '[["g", null], [[["a", null], null]]]',
        '{"result": [["g", [["p", null], null]], []]}',
        "null",
    ],
    "config": [
        (ROOT / "examples" / "taskgate.toml").read_text(),
        (ROOT / "examples" / "compose" / "taskgate.toml").read_text(),
        "auth = 'token'\n[http]\nlisten = '0.0.0.0:1'\n[limits]\nbody = '1MiB'\nrequests = '10/s'\n",
        "[[tasks]]\nname = 't'\nendpoint = 'POST /t/{a}'\nargs = ['{a}']\nrate_limit = '1/m'\n"
        "body = { type = 'object', properties = { b = { type = 'integer' } } }\n",
        "[[schedules]]\nname = 's'\ntask = 't'\ncron = '0 0 * * *'\n[routes]\n'a.*' = 'q'\n",
    ],
}


def texts(vector):
    """(kind, payload) of everything that Celery sent in a vector."""
    for entry in vector.get("commands", []) if isinstance(vector, dict) else []:
        words = [word if isinstance(word, str) else json.dumps(word) for word in entry["cmd"]]
        name, key, payload = words[0].upper(), words[1] if len(words) > 1 else "", words[-1]
        if name == "PUBLISH" and "celeryev" in key:
            yield "event", payload
        elif name == "PUBLISH" and "pidbox" in key:
            yield "control_request", payload
        elif name in ("LPUSH", "RPUSH") and "pidbox" in key:
            yield "control_reply", payload
        elif name == "LPUSH" and payload.startswith("{"):
            yield "message", payload
        elif name in ("SET", "SETEX", "PUBLISH") and "task-meta" in key:
            yield "result_meta", words[-1] if name != "SET" else words[2]
        elif name in ("SET", "SETEX") and "taskset-meta" in key:
            yield "saved_group", words[-1] if name != "SET" else words[2]


def main():
    found = {kind: list(examples) for kind, examples in BY_HAND.items()}
    for path in sorted((ROOT / "tests" / "vectors").glob("celery-*/*.json")):
        for kind, payload in texts(json.loads(path.read_text())):
            found.setdefault(kind, []).append(payload)
    for kind, payloads in found.items():
        folder = CORPUS / kind
        folder.mkdir(parents=True, exist_ok=True)
        unique = list(dict.fromkeys(payloads))
        if len(unique) > MOST:
            unique = [unique[place * len(unique) // MOST] for place in range(MOST)]
        for payload in unique:
            data = payload.encode()
            (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)
        print(kind, len(unique))


if __name__ == "__main__":
    main()
