"""What is shipped: one wheel that verifies on a laptop without the server, and a source archive that makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.http_kit import QUESTION, serving

ROOT = Path(__file__).parents[2]
CLEAN = {name: os.environ[name] for name in os.environ.keys() - {"PYTHONPATH", "VIRTUAL_ENV"}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, and the wheel made from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and what its base needs, no extra."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    found = folder / "venv/bin/python"
    wheel = next(dist.glob("*.whl"))
    run(str(found), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return found


def run(*command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd="/", env=CLEAN, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def shipped(folder: str) -> set[str]:
    """Return the data files of a folder of the repository, relative to it."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.removeprefix(f"{folder}/") for line in listed.splitlines() if (ROOT / line).is_file()}


def test_policies_and_migrations_are_in_wheel_and_source(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    for folder, inside in (("policies", "vault/_policies"), ("migrations", "vault/_migrations")):
        expected = {name for name in shipped(folder) if "cases/" not in name}
        assert expected
        assert {f"{inside}/{name}" for name in expected} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"vault", "twinvault"}
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".key", ".sqlite"))]
    with tarfile.open(next(dist.glob("*.tar.gz"))) as source:
        members = {name.partition("/")[2] for name in source.getnames()}
    assert {"vault/_policies/schema.cedarschema", "vault/_migrations/env.py", "pyproject.toml"} <= members
    assert not [name for name in members if name.startswith(("tests/", ".", "docs/")) and name != ".gitignore"]


def test_an_auditor_verifies_without_the_server(python: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as house:
        owner, company = house.owner_with_twin(), house.company()
        answered = company.ask(house.consent(owner, company), QUESTION)
        trust = house.service.trust_file.read_bytes()
    bundle = tmp_path / "answer.jsonl"
    bundle.write_bytes(answered.bundle)
    (tmp_path / "trust.json").write_bytes(trust)
    command = [str(python.with_name("twinvault")), "auditor", "verify", str(bundle), "--json"]
    report = json.loads(run(*command, "--trust", str(tmp_path / "trust.json")).stdout)
    assert report["failures"] == []
    assert report["leaves"] >= 2
    altered = bytearray(answered.bundle)
    altered[len(altered) // 2] ^= 1
    bundle.write_bytes(altered)
    run(*command, "--trust", str(tmp_path / "trust.json"), status=1)


@pytest.mark.parametrize("command", ["serve", "worker", "operator"])
def test_a_command_that_is_not_installed_names_the_pip_line(command: str, python: Path) -> None:
    refused = run(str(python.with_name("twinvault")), command, status=2)
    assert 'pip install "twinvault[server]"' in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_demo_names_the_pip_line(python: Path) -> None:
    command = [str(python.with_name("twinvault")), "demo", "--exit"]
    refused = subprocess.run(command, cwd="/", env=CLEAN, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert 'pip install "twinvault[demo]"' in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr


def test_the_server_fails_for_its_missing_parts_only(python: Path) -> None:
    code = "try:\n import vault.app\nexcept ModuleNotFoundError as error: print(error.name)"
    missing = run(str(python), "-c", code).stdout.strip()
    assert missing in {"anyio", "uvicorn", "fastapi", "sqlmodel", "sqlalchemy", "numpy", "structlog"}


def test_the_base_brings_no_server(python: Path) -> None:
    listed = run(str(python), "-m", "pip", "list", "--format=json").stdout
    installed = {item["name"].lower() for item in json.loads(listed)}
    assert {"twinvault", "cryptography", "cedarpy"} <= installed
    assert not installed & {"torch", "opacus", "fastapi", "sqlmodel", "sqlalchemy", "uvicorn", "numpy", "alembic"}
