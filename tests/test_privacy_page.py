"""The privacy page states the constants that the code has, and names commands and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from twinvault.cli import app
from vault.ops import operator
from vault.proof.accounting import OWNER_DAY_CAP, PERSON_YEAR_CAP

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "privacy.md").read_text()
QUALITY = (ROOT / "docs" / "twin-quality.md").read_text()


def test_the_caps_are_those_of_the_ledger() -> None:
    assert f"{OWNER_DAY_CAP.epsilon:g} at delta {OWNER_DAY_CAP.delta:.6f} for each day" in PAGE.replace("\n", " ")
    assert f"cap {PERSON_YEAR_CAP.epsilon:g} at delta {PERSON_YEAR_CAP.delta:.6f} a year" in PAGE


def test_what_was_missed_stands_there_as_missed_and_as_it_was_measured() -> None:
    measured = re.search(
        r"^\| 3 \| [0-9.]+ \| ([0-9.]+ %) \|[^|]+\| ([0-9.]+ %) \|.* met, missed \|$", QUALITY, re.MULTILINE
    )
    assert measured is not None, "docs/twin-quality.md no longer says that pooled is met and per person missed"
    said = PAGE.replace("\n", " ")
    for sentence in (
        "one is **missed**: at epsilon 3 a twin keeps {1} of",
        "50 % was wanted. Pooled over all shops it keeps {0} (60 % was wanted)",
    ):
        assert sentence.format(*measured.groups()) in said
    rarely = re.search(r"shops are asked: 1 to [0-9]+ ([0-9.]+ %)", QUALITY)
    served = [
        re.search(rf"^\| {name}.* \| ([0-9.]+ %) \|$", QUALITY, re.MULTILINE)
        for name in (
            "daily rows, trained backbone; days close with",
            "daily rows, trained backbone; each day",
            "daily rows through its lens, the same backbone; days close with",
            "daily rows through its lens, the same backbone; each day",
            "projected days",
        )
    ]
    once, four = (
        re.search(
            rf"^\| {name} \| ([0-9.]+) \| (?:yes|no) \|[^|]+\|[^|]+\| ([0-9.]+ %) \|[^|]+\| ([0-9.]+ %) \|",
            QUALITY,
            re.MULTILINE,
        )
        for name in ("one release for each question", r"four times the mu\^2")
    )
    assert once is not None, "docs/twin-quality.md no longer says what one release for each question keeps"
    assert four is not None, "docs/twin-quality.md no longer says what four times the mu^2 keep"
    assert f"mu^2 (epsilon {four[1]}) a twin of the fifth that is asked least keeps {four[3]}" in said
    assert f"would keep {once[2]} per person at epsilon 3" in said
    for found in (rarely, *served):
        assert found is not None
        assert found[1] in said


def test_every_command_and_file_it_names_exists() -> None:
    owners = get_command(app).commands["owner"].commands  # type: ignore[attr-defined]
    known = {"owner": owners, "operator": get_command(operator).commands}  # type: ignore[attr-defined]
    for noun, verb in re.findall(r"`twinvault (owner|operator) ([a-z-]+)`", PAGE):
        assert verb in known[noun], (noun, verb)
    for path in re.findall(r"`(tests/[^`]+)`|\]\(([^)#]+)\)", PAGE):
        named = path[0] or f"docs/{path[1]}"
        assert (ROOT / named).exists(), named
    for module in re.findall(r"`python -m benchmarks\.([a-z_]+)`", PAGE):
        assert (ROOT / "benchmarks" / f"{module}.py").exists(), module
