"""What CI runs: a failure, a skip or an end by a signal is never lost on the way, and what failed is named at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
PASS = 'echo "5 passed in 1s"'
SKIP = 'echo "SKIPPED [1] tests/b.py:3: no reason"; echo "4 passed, 1 skipped in 1s"'
FAIL = 'echo "FAILED tests/a.py::t - x"; echo "1 failed, 4 passed in 1s"; exit 1'
BROKEN = f'echo "worker gw0 crashed while running"; {FAIL}'
WEAK = 'echo "did not bite at the first attempt: [1] a guard: its test did not fail (pytest exit 0: 1 passed)"'
# The first time that tests are tried alone one is skipped, the second time they pass.
SKIP_ONCE = f"if [ -e tried ]; then {PASS}; else touch tried; {SKIP}; fi"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree whose commands do what the environment says, and where CI finds no other command of these names."""
    stand_ins = {
        "bin/make": 'case "$1" in test) eval "$TEST" ;; check) eval "$CHECK" ;; esac',
        "bin/curl": "",
        ".venv/bin/python": 'case "$*" in *--last-failed*) eval "$ALONE" ;; *) eval "$MARKED" ;; esac',
        ".venv/bin/twinvault": 'eval "$DEMO"',
    }
    for name, does in stand_ins.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{does}\n")
        file.chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(RUN, tmp_path / ".ci" / "run")
    return tmp_path


def ci(tree: Path, **does: str) -> subprocess.Popen[str]:
    given = {"TEST": PASS, "CHECK": PASS, "MARKED": PASS, "ALONE": PASS, "DEMO": "true", **does}
    path = f"{tree / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [tree / ".ci" / "run"], env={**os.environ, **given, "PATH": path, "TMPDIR": str(tree)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("does", "status", "last"),
    [
        ({}, 0, "5 passed in 1s"),
        ({"TEST": FAIL}, 0, "FAILED tests/a.py::t - x"),
        ({"TEST": FAIL, "ALONE": FAIL}, 1, "FAILED tests/a.py::t - x"),
        ({"TEST": BROKEN}, 1, "FAILED tests/a.py::t - x"),
        ({"TEST": "kill -9 $$"}, 1, ""),
        ({"TEST": SKIP}, 1, "SKIPPED [1] tests/b.py:3: no reason"),
        ({"MARKED": SKIP}, 1, "SKIPPED [1] tests/b.py:3: no reason"),
        ({"TEST": FAIL, "MARKED": FAIL, "ALONE": SKIP_ONCE}, 1, "SKIPPED [1] tests/b.py:3: no reason"),
        ({"CHECK": "echo 'FAIL [1] a guard: it does not bite'; exit 2"}, 2, "FAIL [1] a guard: it does not bite"),
        ({"CHECK": WEAK}, 0, WEAK.split('"')[1]),
        ({"DEMO": "exit 3"}, 3, "5 passed in 1s"),
    ],
)
def test_what_went_wrong_ends_ci_and_is_named_last(tree: Path, does: dict[str, str], status: int, last: str) -> None:
    with ci(tree, **does) as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == status, out
    assert last in out.splitlines()[-1]


def test_an_end_from_outside_is_no_success(tree: Path) -> None:
    with ci(tree, TEST=f"{FAIL.removesuffix('; exit 1')}; exec sleep 60") as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("FAILED")
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == -signal.SIGTERM
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # what it had begun
