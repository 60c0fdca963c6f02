"""What is published: the version of the binary, types, and nothing that it needs besides httpx."""
from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from conftest import ROOT

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=HERE, check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_version_is_the_binary_s(wheel, binary):
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    version = cargo["workspace"]["package"]["version"]
    assert f"-{version}-" in wheel.filename
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    assert version in said.split()


def test_the_wheel_has_types_and_needs_httpx_only(wheel):
    names = wheel.namelist()
    assert "taskgate/py.typed" in names and "taskgate/celery/install.py" in names
    metadata = message_from_string(wheel.read(next(name for name in names if name.endswith("METADATA"))).decode())
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert [line.split("<")[0].split(">")[0] for line in needed] == ["httpx"]


def test_the_client_works_without_celery(tmp_path):
    program = (
        "import sys; sys.modules['celery'] = None\n"
        "import taskgate; taskgate.Client('http://x'); print(taskgate.signature('a'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**_environment()})
    assert done.returncode == 0, done.stderr


def test_all_of_it_is_typed():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", "/dev/null"], cwd=HERE, capture_output=True, text=True,
        env={**_environment(), "MYPYPATH": str(HERE / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environment():
    import os

    return dict(os.environ)
