#!/usr/bin/env python3
"""Runs the tests, then gives each test that failed two more tries, alone.

    .ci/retry_failed.py COMMAND...      COMMAND runs `cargo test --no-fail-fast` once, last: `make test-code`

A test that depends on the load of the machine must not block an unrelated change, and must not be overlooked either. So a test that
passes when it is run again lets the run pass, and is named in the last lines before the closing line:

    flaky: edge::sse::a_reader_resumes, passed at try 2
    1542 passed, 0 failed, 3 skipped

The run fails when a test fails three times, when a test program ends without a result (a crash says nothing about the tests that
did not run), when COMMAND fails for another reason (it did not compile), when no test ran, or when more than MOST_RETRIES tests
failed: that many do not fail by chance.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field

TRIES = 3
MOST_RETRIES = 20
SECONDS_PER_TRY = 900  # cargo's own checks included

RESULT = re.compile(r"^test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; ")
TARGET_FAILED = re.compile(r"^error: (?:doc)?test failed, to rerun pass `(.+)`$")
NAME = re.compile(r"^    (\S.*)$")


@dataclass(frozen=True)
class Failure:
    target: str  # what cargo says selects the test program: `-p taskgate --test it`
    name: str


@dataclass
class Report:
    """Reads the output of `cargo test`, which runs several test programs. Feed it every line, in order."""

    passed: int = 0
    failed: int = 0
    ignored: int = 0
    failures: list[Failure] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    _listed: list[str] | None = None  # names below the latest `failures:`
    _unplaced: list[str] = field(default_factory=list)  # failed tests of a program that cargo has not named yet

    def read(self, line: str) -> None:
        line = line.rstrip("\n")
        if result := RESULT.match(line):
            self._end_of_program(*(int(number) for number in result.groups()))
        elif target := TARGET_FAILED.match(line):
            self._end_of_target(target.group(1))
        elif line == "failures:":
            self._listed = []  # the list of names is the last block of this title
        elif self._listed is not None and (name := NAME.match(line)):
            self._listed.append(name.group(1))

    def _end_of_program(self, passed: int, failed: int, ignored: int) -> None:
        self.passed += passed
        self.failed += failed
        self.ignored += ignored
        listed = (self._listed or [])[-failed:] if failed else []
        self._unplaced, self._listed = listed, None

    def _end_of_target(self, target: str) -> None:
        if not self._unplaced:
            self.crashed.append(target)
        self.failures += [Failure(target, name) for name in self._unplaced]
        self._unplaced = []


def run(command: list[str]) -> tuple[int, Report]:
    """Runs `command`, shows its output as it comes, and reads it."""
    report = Report()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert child.stdout
    for line in child.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        report.read(line)
    return child.wait(), report


def passes_alone(failure: Failure) -> bool:
    """One more try. True only if this one test ran and passed."""
    command = ["cargo", "test", "--locked", *shlex.split(failure.target), "--", "--exact", failure.name]
    print(f"\n== again, alone: {shlex.join(command)}", flush=True)
    status, report = run(["timeout", "--kill-after=10", str(SECONDS_PER_TRY), *command])
    return status == 0 and report.passed == 1


def try_that_passes(failure: Failure) -> int | None:
    return next((number for number in range(2, TRIES + 1) if passes_alone(failure)), None)


def why_no_retry(status: int, report: Report) -> str | None:
    """Why trying again could not make this run pass, or None."""
    if report.crashed:
        return f"ended without a result: {', '.join(report.crashed)}"
    if report.failed != len(report.failures):
        return f"{report.failed} tests failed, {len(report.failures)} of them are known by name"
    if status != 0 and report.failed == 0:
        return f"the command failed with status {status}, and no test did"
    if report.failed > MOST_RETRIES:
        return f"{report.failed} tests failed; more than {MOST_RETRIES} are not tried again"
    if report.passed + report.failed == 0:
        return "no test ran"
    return None


def main(command: list[str]) -> int:
    status, report = run(command)
    if reason := why_no_retry(status, report):
        print(f"\nno test is tried again: {reason}")
        close(report, report.failed)
        return status or 1
    tries = {failure: try_that_passes(failure) for failure in report.failures}
    broken = [failure for failure, passed_at in tries.items() if passed_at is None]
    print()
    for failure in broken:
        print(f"failed {TRIES} times: {failure.name} ({failure.target})")
    for failure, passed_at in tries.items():
        if passed_at is not None:
            print(f"flaky: {failure.name}, passed at try {passed_at}")
    close(report, len(broken))
    return 1 if broken else 0


def close(report: Report, failed: int) -> None:
    """The runner's closing line: every test counts once, by its last try."""
    passed = report.passed + report.failed - failed
    print(f"{passed} passed, {failed} failed, {report.ignored} skipped", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: .ci/retry_failed.py COMMAND...")
    os.environ["CARGO_TERM_COLOR"] = "never"  # the lines are read by their text
    sys.exit(main(sys.argv[1:]))
