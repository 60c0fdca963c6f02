#!/usr/bin/env python3
"""Generates docs/reference from the code, and the index of decisions.

    .ci/reference.py            writes the pages (make reference)
    .ci/reference.py --check    fails when a page is not current

So every key, metric and problem has a line, and no line describes something that was removed. The script also fails if a description is
missing: a key without a comment, a metric without help, a top key without a section.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = "<!-- Made from the code by `make reference`. Edit the comments there, not this page. -->\n"
faults: list[str] = []


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def cell(text: str) -> str:
    """A cell of a table: one line, without bars."""
    return " ".join(text.split()).replace("|", "\\|")


def table(*heads: str) -> str:
    return "| " + " | ".join(heads) + " |\n|" + "---|" * len(heads) + "\n"


# --- configuration: `Raw…` structs in src/config name the keys. A key's meaning is the comment of its field, or of the field of the
# same name in a struct beside it, which says what the value means.

# Title, struct, and the word in TASKGATE_WORD__KEY where keys are variables too.
SECTIONS = [
    ("[http]", "RawHttp", "HTTP"),
    ("[login]", "RawLogin", "LOGIN"),
    ("[oidc]", "RawOidc", "OIDC"),
    ("[[users]]", "RawUser", None),
    ("[database]", "RawDatabase", "DATABASE"),
    ("[ledger]", "RawLedger", "LEDGER"),
    ("[broker]", "RawBroker", "BROKER"),
    ("[backend]", "RawBackend", "BACKEND"),
    ("[submit]", "RawSubmit", "SUBMIT"),
    ("[limits]", "RawLimits", "LIMITS"),
    ("[sweeper]", "RawSweeper", "SWEEPER"),
    ("[recovery]", "RawRecovery", "RECOVERY"),
    ("[incidents]", "RawIncidents", "INCIDENTS"),
    ("[[notify]]", "RawNotify", None),
    ("[webhooks]", "RawWebhooks", "WEBHOOKS"),
    ("[worker]", "RawWorker", "WORKER"),
    ("[log]", "RawLog", "LOG"),
    ("[compat]", "RawCompat", "COMPAT"),
    ("[logs]", "RawLogs", "LOGS"),
    ("[telemetry]", "RawTelemetry", "TELEMETRY"),
    ("[[tasks]]", "RawTask", None),
    ("[[inboxes]]", "RawInbox", None),
    ("[[hooks]]", "RawHook", None),
    ("[exchanges.NAME]", "RawExchange", None),
    ("[queues.NAME]", "RawQueue", None),
    ("[stores.NAME]", "RawStore", None),
]
IN_TEXT = {"auth", "catalogs", "learn", "routes", "schedules"}
KINDS = {
    "Span": "duration",
    "Bytes": "size",
    "Count": "number",
    "Scalar": "number",
    "Switch": "true or false",
    "Words": "list",
    "Quota": "rate",
    "Text": "text",
    "String": "text",
}
CONFIGURATION = """# Configuration

`taskgate --config FILE` reads a TOML file. A key can be set in several places; the first of these wins: a flag, a variable
`TASKGATE_SECTION__KEY`, the file, `DATABASE_URL` and `CELERY_…`, the default. An unknown key, a value of the wrong kind and two values
that contradict each other stop the start, with a message that names their places. [examples/taskgate.toml](../../examples/taskgate.toml)
shows every kind of entry.

| type | how it is written |
|---|---|
| duration | `"180d"`, `"36h"`, `"10m"`, `"30s"`, `"250ms"`, or a number of seconds |
| size | `"8MiB"`, `"512KiB"`, or a number of bytes |
| rate | `"100/s"`, `"1000/m"`, `"5000/h"` |
| list | `["a", "b"]`; in a variable `a,b` or JSON |
| table | `{ … }`; in a variable JSON |

## At the top

| key | default | meaning |
|---|---|---|
| `auth` | `"token"`; in `dev` `"none"` | who may call: `"none"` anyone who can reach the listener, `"token"` holders of tokens, `"basic"` also `[[users]]`, `"oidc"` also people whom the provider of `[oidc]` authenticates |
| `learn` | none | names or patterns of tasks whose type hints are learned from the workers: `POST /tasks/NAME` takes their arguments by name, and a \
value of another type is refused before it is queued. See [the client](../client.md#tasks-that-workers-register) |
| `catalogs` | none | files with `[[tasks]]`, as `python -m taskgate.export` writes them, relative to this one; an entry of the configuration replaces \
the one of the same name. See [the client](../client.md#tasks-that-the-application-describes) |
| `[routes]` | | `"name.or.*" = "queue"`, or `{ exchange = "…", routing_key = "…" }`: the queue of a task for which neither the request nor its \
catalog entry sets one. The exact name wins, then the longest pattern. See [routing](../routing.md) |
| `[[schedules]]` | | seeds the timetable once; later edits over HTTP win. See [schedules](../schedules.md) |
"""
VARIABLES = """| `TASKGATE_CONFIG` | the file, like `--config` |
| `TASKGATE_URL`, `TASKGATE_TOKEN`, `TASKGATE_CA` | where the client commands (`submit`, `watch`, …) find the gateway, which token \
they send, and which authority they trust for its certificate |
| `SAMPLE_SITE_URL` | the site that the sample crawler of `dev` and `worker` reads |
"""


@dataclass
class Field:
    name: str
    comment: str
    kind: str


def fields(body: str) -> list[Field]:
    found, comment, name = [], [], None
    for line in map(str.strip, body.splitlines()):
        if line.startswith("///"):
            comment.append(line[3:].strip())
        elif line.startswith("#"):
            renamed = re.search(r'rename = "(\w+)"', line)
            name = renamed[1] if renamed else name
        elif field := re.match(r"(?:pub(?:\([a-z]+\))? )?(\w+): (.+),$", line):
            found.append(Field(name or field[1], " ".join(comment), field[2]))
            comment, name = [], None
    return found


def structs() -> dict[str, tuple[Path, list[Field]]]:
    """Each struct of src/config with its file and its fields."""
    head = re.compile(r"^(?:pub(?:\([a-z]+\))? )?struct (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
    found = {}
    for path in sorted((ROOT / "src/config").rglob("*.rs")):
        for name, body in head.findall(path.read_text(encoding="utf-8")):
            found[name] = (path, fields(body))
    return found


def meaning(comment: str) -> tuple[str, str]:
    """The comment, parted into what the key means and its default."""
    default = re.search(r"(?:^|\s)Default:? (.+?)\.?(?:$|\.\s|;\s)", comment)
    if not default:
        return cell(comment), ""
    after = comment[default.end() :]
    return cell(f"{comment[: default.start()]} {after[:1].upper()}{after[1:]}"), cell(default[1])


def comment_of(key: Field, file: Path, everything: dict[str, tuple[Path, list[Field]]]) -> str:
    beside = (field for path, others in everything.values() if path == file for field in others)
    return key.comment or next((field.comment for field in beside if field.name == key.name and field.comment), "")


def section(title: str, struct: str, word: str | None, everything: dict) -> str:
    file, keys = everything[struct]
    page = f"\n## `{title}`\n\n" + table("key", "type", "default", "meaning", *(["variable"] if word else []))
    for key in keys:
        text, default = meaning(comment_of(key, file, everything))
        if not text:
            faults.append(f"{title} {key.name}: write a comment (///) in {file.relative_to(ROOT)} that says what it means")
        rust = re.sub(r"^Option<(.*)>$", r"\1", key.kind)
        kind = "list" if rust.startswith("Vec<") else KINDS.get(rust, "table")
        variable = f" `TASKGATE_{word}__{key.name.upper()}` |" if word else ""
        page += f"| `{key.name}` | {kind} | {default} | {text} |{variable}\n"
    return page


def configuration() -> str:
    everything = structs()
    page = CONFIGURATION + "".join(section(*entry, everything) for entry in SECTIONS)
    page += "\n## Other variables\n\n" + table("variable", "what it sets")
    for variable, key in re.findall(r'\("([A-Z_]+)", "([a-z_.]+)"\)', read("src/config/source.rs")):
        page += f"| `{variable}` | `{key}`, unless the file or `TASKGATE_…` says it |\n"
    keys = re.search(r"const TOP_KEYS[^=]*= \[(.*?)\];", read("src/config/mod.rs"), re.DOTALL)
    here = {title.strip("[]").split(".")[0] for title, *_ in SECTIONS} | IN_TEXT
    for key in re.findall(r'"(\w+)"', keys[1] if keys else ""):
        if key not in here:
            faults.append(f"the key {key} has no section: add its struct to SECTIONS in .ci/reference.py")
    return page + VARIABLES


# --- metrics

Metrics = dict[str, tuple[str, str]]  # name → kind and help


def of_the_process() -> Metrics:
    found = {}
    lists = re.findall(r"const (COUNTERS|GAUGES|HISTOGRAMS)[^=]*= &\[(.*?)\n\];", read("src/telemetry/names.rs"), re.DOTALL)
    for kind, body in lists:
        for name, text in re.findall(r'\(\s*"(\w+)",\s*"([^"]+)",?\s*\)', body):
            found[name] = (kind.rstrip("S").lower(), text)
    return found


def of_the_fleet() -> Metrics:
    text, found = read("src/edge/fleet.rs"), {}
    for expression, kind in [
        (r'\("\w+", "(?P<name>\w+_total)", "\w+", "(?P<help>[^"]+)"\)', "counter"),
        (r'\("\w+", "\w+_us", "(?P<name>\w+)", "(?P<help>[^"]+)"\)', "histogram"),
        (r'head\(out, "(?P<name>\w+)", "(?P<kind>\w+)", "(?P<help>[^"]+)"\)', ""),
        (r'\("(?P<name>(?:celery|taskgate)_\w+)", "(?P<help>[^"]+)", &', "gauge"),
    ]:
        for entry in re.finditer(expression, text):
            found[entry["name"]] = (entry.groupdict().get("kind") or kind, entry["help"])
    return found


def metric_rows(metrics: Metrics) -> str:
    rows = (f"| `{name}` | {kind} | {cell(text)} |\n" for name, (kind, text) in sorted(metrics.items()))
    return table("name", "kind", "what it says") + "".join(rows)


def metrics() -> str:
    process, fleet = of_the_process(), of_the_fleet()
    counted = re.compile(r'(?:counter|gauge|histogram)!\(\s*"(\w+)"')
    for path in sorted([*(ROOT / "src").rglob("*.rs"), *(ROOT / "crates").rglob("*.rs")]):
        for name in counted.findall(path.read_text(encoding="utf-8")):
            if name not in process and name not in fleet:
                faults.append(f"{name}: put it with its help into src/telemetry/names.rs")
    return f"""# Metrics

`GET /metrics` answers in Prometheus' text format. docs/grafana has a board and alerts for them.

## Of one process

Each replica counts for itself: add them up.

{metric_rows(process)}
## Of the fleet

Computed from the ledger at each scrape, and shown by the replica that records: scrape all replicas, and a sum over them counts everything
once. Who scrapes one of them, or a load balancer, asks for `/metrics?fleet=true`, which every replica answers alike. Names that Celery
exporters use mean the same here: the boards and alerts of celery-exporter's mixin find what they ask for.

{metric_rows(fleet)}"""


# --- problems

STATUS = {
    "BAD_REQUEST": 400, "UNAUTHORIZED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "NOT_ACCEPTABLE": 406,
    "REQUEST_TIMEOUT": 408, "CONFLICT": 409, "GONE": 410, "LENGTH_REQUIRED": 411, "PRECONDITION_FAILED": 412, "PAYLOAD_TOO_LARGE": 413,
    "URI_TOO_LONG": 414, "UNSUPPORTED_MEDIA_TYPE": 415, "RANGE_NOT_SATISFIABLE": 416, "EXPECTATION_FAILED": 417,
    "MISDIRECTED_REQUEST": 421, "UNPROCESSABLE_ENTITY": 422, "FAILED_DEPENDENCY": 424, "UPGRADE_REQUIRED": 426,
    "PRECONDITION_REQUIRED": 428, "TOO_MANY_REQUESTS": 429, "REQUEST_HEADER_FIELDS_TOO_LARGE": 431, "INTERNAL_SERVER_ERROR": 500,
    "NOT_IMPLEMENTED": 501, "BAD_GATEWAY": 502, "SERVICE_UNAVAILABLE": 503, "GATEWAY_TIMEOUT": 504, "HTTP_VERSION_NOT_SUPPORTED": 505,
}  # fmt: skip


def problems() -> str:
    text = r'"((?:[^"\\]|\\.)*)"'
    entry = re.compile(rf"^    \w+ = {text}, (\w+), {text},\s*{text},\s*{text};", re.MULTILINE)
    source = read("src/edge/slugs.rs")
    found = entry.findall(source)
    if len(found) != len(re.findall(r'^    \w+ = "', source, re.MULTILINE)):
        faults.append("src/edge/slugs.rs has entries that .ci/reference.py cannot read")
    page = """# Problems

Every refusal is an `application/problem+json` document (RFC 9457). Its `type` is `/problems/NAME`; the gateway serves a page there that
has the same text as this table. A name never changes its meaning.

"""
    page += table("name", "status", "why", "what to do")
    for name, status, _, cause, cure in found:
        cause, cure = (cell(part.replace('\\"', '"')) for part in (cause, cure))
        page += f"| `{name}` | {STATUS[status]} | {cause} | {cure} |\n"
    return page


# --- decisions


def decisions() -> str:
    """The index with one line for each file of docs/adr, and the text above the table as it is."""
    index = read("docs/adr/README.md")
    rows = ""
    for path in sorted((ROOT / "docs/adr").glob("[0-9]*.md")):
        title = re.match(r"# (\d+)\. (.+)", path.read_text(encoding="utf-8"))
        if not title or int(title[1]) != int(path.name[:4]):
            faults.append(f"docs/adr/{path.name} must begin with '# {int(path.name[:4])}. '")
            continue
        rows += f"| {title[1]} | [{title[2]}]({path.name}) |\n"
    return index[: index.index("|---|---|\n")] + "|---|---|\n" + rows


def main(check: bool) -> int:
    pages = {
        "docs/reference/configuration.md": MADE + configuration(),
        "docs/reference/metrics.md": MADE + metrics(),
        "docs/reference/problems.md": MADE + problems(),
        "docs/adr/README.md": decisions(),
    }
    for path, text in pages.items():
        target = ROOT / path
        if check and (not target.exists() or target.read_text(encoding="utf-8") != text):
            faults.append(f"{path} is not current: run 'make reference'")
        elif not check:
            target.write_text(text, encoding="utf-8")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
