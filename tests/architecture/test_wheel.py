"""What is shipped: one wheel that verifies on a laptop without the server, and a source archive that makes it."""

from __future__ import annotations

import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.http_kit import QUESTION, serving
from tests.wheel_kit import CLEAN, ROOT, run

pytestmark = pytest.mark.slow


def shipped(folder: str) -> set[str]:
    """Return the data files of a folder of the repository, relative to it."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.removeprefix(f"{folder}/") for line in listed.splitlines() if (ROOT / line).is_file()}


def test_policies_and_migrations_are_in_wheel_and_source(built_wheel: Path) -> None:
    with zipfile.ZipFile(next(built_wheel.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    for folder, inside in (("policies", "vault/_policies"), ("migrations", "vault/_migrations")):
        expected = {name for name in shipped(folder) if "cases/" not in name}
        assert expected
        assert {f"{inside}/{name}" for name in expected} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"vault", "twinvault"}
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".key", ".sqlite"))]
    with tarfile.open(next(built_wheel.glob("*.tar.gz"))) as source:
        members = {name.partition("/")[2] for name in source.getnames()}
    assert {"vault/_policies/schema.cedarschema", "vault/_migrations/env.py", "pyproject.toml"} <= members
    assert not [name for name in members if name.startswith(("tests/", ".", "docs/")) and name != ".gitignore"]


def test_an_auditor_verifies_without_the_server(base_python: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as house:
        owner, company = house.owner_with_twin(), house.company()
        answered = company.ask(house.consent(owner, company), QUESTION)
        trust = house.service.trust_file.read_bytes()
    bundle = tmp_path / "answer.jsonl"
    bundle.write_bytes(answered.bundle)
    (tmp_path / "trust.json").write_bytes(trust)
    command = [str(base_python.with_name("twinvault")), "auditor", "verify", str(bundle), "--json"]
    report = json.loads(run(*command, "--trust", str(tmp_path / "trust.json")).stdout)
    assert report["failures"] == []
    assert report["leaves"] >= 2
    altered = bytearray(answered.bundle)
    altered[len(altered) // 2] ^= 1
    bundle.write_bytes(altered)
    run(*command, "--trust", str(tmp_path / "trust.json"), status=1)


@pytest.mark.parametrize("command", ["serve", "worker", "operator"])
def test_a_command_that_is_not_installed_names_the_pip_line(command: str, base_python: Path) -> None:
    refused = run(str(base_python.with_name("twinvault")), command, status=2)
    assert 'pip install "twinvault[server]"' in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_demo_names_the_pip_line(base_python: Path) -> None:
    command = [str(base_python.with_name("twinvault")), "demo", "--exit"]
    refused = subprocess.run(command, cwd="/", env=CLEAN, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert 'pip install "twinvault[demo]"' in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr


def test_the_server_fails_for_its_missing_parts_only(base_python: Path) -> None:
    code = "try:\n import vault.app\nexcept ModuleNotFoundError as error: print(error.name)"
    missing = run(str(base_python), "-c", code).stdout.strip()
    assert missing in {"anyio", "uvicorn", "fastapi", "sqlmodel", "sqlalchemy", "numpy", "structlog"}


def test_the_base_brings_no_server(base_python: Path) -> None:
    listed = run(str(base_python), "-m", "pip", "list", "--format=json").stdout
    installed = {item["name"].lower() for item in json.loads(listed)}
    assert {"twinvault", "cryptography", "cedarpy"} <= installed
    assert not installed & {"torch", "opacus", "fastapi", "sqlmodel", "sqlalchemy", "uvicorn", "numpy", "alembic"}
