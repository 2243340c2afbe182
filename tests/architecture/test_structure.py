"""House rules that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from tests.attacks.unguard import load
from vault.errors import VaultError
from vault.http.next_steps import NEXT_STEPS

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("vault/**/*.py"), *ROOT.glob("clients/python/twinvault/**/*.py")])


def test_models_are_private_to_their_package() -> None:
    graph = grimp.build_graph("vault", cache_dir=None)
    leaks = [
        (importer, module)
        for module in graph.modules
        if module.endswith(".models")
        for importer in graph.find_modules_that_directly_import(module)
        if not importer.startswith(module.removesuffix("models"))
    ]
    assert leaks == []


def test_only_policy_makes_a_permit() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Permit"
    }
    assert all(maker.startswith("vault/policy/") for maker in makers)
    assert makers


def test_only_the_decision_module_calls_cedar() -> None:
    users = {path.relative_to(ROOT).as_posix() for path in SOURCES if "cedarpy" in path.read_text()}
    assert users == {"vault/proof/decision.py"}


def test_files_stay_under_400_lines() -> None:
    others = (path for folder in ("tests", "benchmarks", "migrations") for path in ROOT.glob(f"{folder}/**/*.py"))
    long = {str(path): lines for path in [*SOURCES, *others] if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_every_error_has_its_own_slug_title_and_status() -> None:
    for path in SOURCES:
        if "VaultError" in path.read_text() and "/vault/" in path.as_posix() and path.name != "__init__.py":
            __import__(".".join(path.relative_to(ROOT).with_suffix("").parts))
    pending, seen = [VaultError], {}
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if not error.__module__.startswith("vault."):
            continue
        assert error.__doc__, error
        assert 400 <= error.status < 600, error
        owner = seen.setdefault(error.slug, error)
        assert owner is error or issubclass(error, owner) or issubclass(owner, error), (owner, error)
    assert NEXT_STEPS.keys() <= seen.keys(), "no refusal is meant"


def test_the_operators_commands_start_without_what_a_test_imported_and_without_torch() -> None:
    """Torch takes seconds to load, at every command and in the supervisor, which keeps it in memory for nothing."""
    loads = "import sys; from vault.ops import operator, serve, worker; sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_supervisor_starts_without_what_serves_migrates_and_trains() -> None:
    """Everybody waits for it at a start: with all of that it takes several times as long to load."""
    loads = (
        "import sys; from vault.ops import serve, worker;"
        "sys.exit(', '.join({'alembic', 'fastapi', 'torch', 'uvicorn', 'vault.ops.commands'} & sys.modules.keys()) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_import_contracts_hold() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_guards_name_existing_text_and_tests() -> None:
    guards = load()
    assert guards
    for guard in guards:
        assert (ROOT / guard.file).read_text().count(guard.find) == 1, guard.name
        assert guard.put != guard.find, guard.name
        path, name = guard.test.split("::")[:2]
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(), guard.name
        if guard.file.endswith(".py"):  # one that no longer parses would fail any test
            ast.parse((ROOT / guard.file).read_text().replace(guard.find, guard.put))
    assert len({guard.name for guard in guards}) == len(guards)


def test_every_invariant_has_a_guard() -> None:
    assert {guard.invariant for guard in load()} == set(range(1, 11))


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error"])
def test_no_stub_is_left(word: str) -> None:
    assert [path.name for path in SOURCES if word in path.read_text()] == []
