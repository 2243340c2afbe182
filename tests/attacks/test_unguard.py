"""What tries the guards: one that never bites fails, one that bites late is named, and both are said at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.attacks import unguard
from tests.attacks.unguard import Guard

_TEST = """
from pathlib import Path
import module

def test_{name}():
    if module.{name}():
        return
    attempts = Path(__file__).with_name("{name}")
    attempts.write_text(attempts.read_text() + "." if attempts.exists() else ".")
    assert len(attempts.read_text()) < {bites_at}
"""
_LATE = "its test did not fail (pytest exit 0: 1 passed"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a tree of three guards whose tests fail without them from the first, third and fourth attempt on."""
    guards = []
    folder = tmp_path / "tree"
    folder.mkdir()
    for bites_at, name in ((1, "at_once"), (3, "late"), (4, "never")):
        with (folder / "module.py").open("a") as module, (folder / "test_it.py").open("a") as tests:
            module.write(f"def {name}():\n    return '{name}'\n")
            tests.write(_TEST.format(name=name, bites_at=bites_at))
        guards.append(Guard(name, 1, "module.py", f"return '{name}'", "return False", f"test_it.py::test_{name}"))
    monkeypatch.setattr(unguard, "ROOT", folder)
    monkeypatch.setattr(unguard, "load", lambda: guards)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return folder


@pytest.mark.slow
def test_a_test_that_does_not_bite_is_tried_again_and_named_at_the_end(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["unguard"])
    assert unguard.main() == 1
    *each, weak, failed, total = capsys.readouterr().out.splitlines()
    assert each == ["ok   [1] at_once", "ok   [1] late", failed]
    assert weak.startswith(f"did not bite at the first attempt: [1] late: {_LATE}")
    assert failed.startswith(f"FAIL [1] never: {_LATE}")
    assert total == "2 passed, 1 failed"
    monkeypatch.setattr(sys, "argv", ["unguard", "late"])
    assert unguard.main() == 0


def test_a_test_that_does_not_end_without_its_guard_is_told_and_the_tree_left_as_it_was(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tree / "module.py").read_text()
    monkeypatch.setattr(unguard, "_TEST_S", 0)
    hangs = "its test neither failed nor passed in 0 s"
    assert unguard.tried(unguard.load()[0], tree) == (hangs, hangs)
    assert (tree / "module.py").read_text() == before


def test_a_guard_whose_text_is_gone_is_told(tree: Path) -> None:
    (tree / "module.py").write_text("")
    assert unguard.complaint(unguard.load()[0], tree) == "its `find` text does not occur exactly once"
