#!/usr/bin/env python3
"""Checks a release's version and prints its notes.

    .ci/release.py version TAG      checks that TAG, Cargo.toml, the chart, the clients and the changelog agree; prints version=X.Y.Z
    .ci/release.py notes VERSION    prints the changelog's section about VERSION

The version is written in several places; a release stops if they differ.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"^## (?P<version>\d+\.\d+\.\d+)(?P<rest>.*)$", re.MULTILINE)


def first(path: str, pattern: str) -> str:
    found = re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        sys.exit(f"{path}: no line like {pattern}")
    return found.group(1)


def places() -> dict[str, str]:
    """Every place that contains the version."""
    return {
        "Cargo.toml, package.version": first("Cargo.toml", r'^version = "(.+)"$'),
        "deploy/helm/taskgate/Chart.yaml, version": first("deploy/helm/taskgate/Chart.yaml", r"^version: (.+)$"),
        "deploy/helm/taskgate/Chart.yaml, appVersion": first("deploy/helm/taskgate/Chart.yaml", r"^appVersion: (.+)$"),
        "clients/python/src/taskgate/_version.py": first(
            "clients/python/src/taskgate/_version.py", r'^__version__ = "(.+)"$'
        ),
        "clients/typescript/package.json": first("clients/typescript/package.json", r'^  "version": "(.+)",$'),
        "docs/CHANGELOG.md, first section": first("docs/CHANGELOG.md", r"^## (\d+\.\d+\.\d+)"),
    }


def notes(version: str) -> str:
    text = (ROOT / "docs/CHANGELOG.md").read_text(encoding="utf-8")
    sections = list(SECTION.finditer(text))
    for section, after in zip(sections, [*sections[1:], None]):
        if section["version"] == version:
            return text[section.end() : after.start() if after else len(text)].strip() + "\n"
    sys.exit(f"docs/CHANGELOG.md: no section about {version}")


def check(tag: str) -> str:
    version = tag.removeprefix("v")
    wrong = [f"{place} says {said}" for place, said in places().items() if said != version]
    if wrong:
        sys.exit(f"the tag is {tag}, but\n  " + "\n  ".join(wrong))
    if "unreleased" in first("docs/CHANGELOG.md", r"^## (.+)$"):
        sys.exit("docs/CHANGELOG.md: the first section still says (unreleased); put the date there")
    return version


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["version", tag]:
            print(f"version={check(tag)}")
        case ["notes", version]:
            print(notes(version), end="")
        case _:
            sys.exit(__doc__)
