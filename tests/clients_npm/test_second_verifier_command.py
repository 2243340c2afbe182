"""The second verifier by itself: its words, its signatures and its command are the first one's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.proof.conftest import honest
from tests.proof.forge import Honest
from tests.signed_entries import LOG_KEY, as_json, entries
from vault.proof.trust import dump_trust
from vault.schema.category import CATEGORIES, MINTED_PURPOSES, PURPOSES

__all__ = ["honest"]

pytestmark = pytest.mark.needs_npm

MANY_SIGNED = Path(__file__).with_name("signed_many.mjs")


def test_the_second_verifier_has_the_same_vocabulary(dist: Path) -> None:
    script = (
        'import * as own from "./vocabulary.js";'
        "console.log(JSON.stringify(Object.fromEntries(Object.entries(own).map(([name, all]) => [name, [...all]]))))"
    )
    run = subprocess.run(
        ["node", "--input-type=module", "-e", script], cwd=dist, check=True, capture_output=True, timeout=60
    )
    said = {name: set(names) for name, names in json.loads(run.stdout).items()}
    assert said == {
        "CATEGORIES": set(CATEGORIES),
        "SPECIAL_CATEGORIES": {name for name, term in CATEGORIES.items() if term.special},
        "PURPOSES": {*PURPOSES, *MINTED_PURPOSES},
    }


def test_every_signature_of_a_special_key_is_judged_alike(dist: Path, tmp_path: Path) -> None:
    """What one verifier takes and another refuses would be a way to show two auditors two truths."""
    cases = list(entries())
    (tmp_path / "signed").write_bytes(b"".join(map(as_json, cases)))
    (tmp_path / "signed.log").write_text(LOG_KEY.text)
    command = ["node", MANY_SIGNED, dist, tmp_path / "signed"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    second = [line == "true" for line in run.stdout.splitlines()]
    told = zip(cases, second, strict=True)
    assert [(case.entry, case.name, taken) for case, taken in told if taken != case.accepted] == []


def test_the_second_verifier_is_a_command(dist: Path, honest: Honest, tmp_path: Path) -> None:
    (tmp_path / "trust").write_bytes(dump_trust(honest.service.trust))
    for data, status in ((honest.content, 0), (honest.content[:-1], 1)):
        (tmp_path / "bundle").write_bytes(data)
        command = ["node", dist / "verify.js", tmp_path / "bundle", tmp_path / "trust"]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert (run.returncode, bool(json.loads(run.stdout)["failures"])) == (status, bool(status))
    (tmp_path / "bundle").touch()
    with (tmp_path / "bundle").open("r+b") as file:
        file.truncate(10 * 2**30)  # ten gigabytes that take no room on the disk
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert [failure["step"] for failure in json.loads(run.stdout)["failures"]] == [0]
    assert subprocess.run(command[:2], check=False, capture_output=True, timeout=60).returncode == 2
