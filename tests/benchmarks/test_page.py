"""The page of all benchmarks: each is a command of its own, and what one printed is kept and not measured again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as every
from benchmarks._quality_page import _unseen


def test_what_was_printed_is_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "commands", lambda: iter([["notes"]]))
    first = every.page(tmp_path, quick=True)
    (kept,) = tmp_path.iterdir()
    figures = json.loads(kept.read_bytes())
    assert f"| `receipt_bytes` | {figures['receipt_bytes']} |" in first
    assert "`python -m benchmarks.notes --json --quick`, " in first
    assert every.page(tmp_path, quick=True) == first, "times differ from run to run"
    kept.write_text(json.dumps({"receipt_bytes": 1}))
    assert "| `receipt_bytes` | 1 |" in every.page(tmp_path, quick=True)


def test_folds_are_told_apart_that_no_setting_was_chosen_by() -> None:
    shares = {"share_pooled": 0.604, "share_pooled_interval": [0.57, 0.63]}
    shares |= {"share_per_person": 0.35, "share_per_person_interval": [0.33, 0.38]}
    told = _unseen({"folds_not_looked_at": {"3": shares}})
    assert (
        told
        == " (the three others alone, at epsilon 3: 60.4 % (57 % to 63 %) pooled, 35.0 % (33 % to 38 %) per person)"
    )
    assert _unseen({}) == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", [*every.commands()], ids=" ".join)
def test_each_benchmark_takes_what_the_page_gives_it(command: list[str]) -> None:
    said = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:], "--help"],
        cwd=every.ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "--json" in said
    assert "--quick" in said
