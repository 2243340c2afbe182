"""A second verifier, in JavaScript, agrees with the first about honest bundles and about altered ones."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.audit_kit import audited, closed, leaf_of, without
from tests.clients.test_witness import listening
from twinvault.witness import Witness
from vault.db import Database
from vault.proof.bundle import Bundle, dump_bundle, parse_bundle
from vault.proof.errors import MalformedProof
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.proof.trust import TrustedRoot, dump_trust
from vault.proof.verify import verify_bundle
from vault.proof.witness import WitnessPolicy
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.witnesses import Witnesses, WitnessPlan, WitnessSite

pytestmark = pytest.mark.needs_npm  # Node.js alone, no package

SCRIPT = Path(__file__).parents[2] / "clients/web/verify/verify.mjs"
CORE = (Step.CHECKPOINT, Step.INCLUSION, Step.OPENINGS, Step.ORDER, Step.WITNESSES)


def second(data: bytes, trust: TrustedRoot, folder: Path) -> dict[str, Any]:
    (folder / "bundle").write_bytes(data)
    (folder / "trust.json").write_bytes(dump_trust(trust))
    run = subprocess.run(
        ["node", str(SCRIPT), str(folder / "bundle"), str(folder / "trust.json")],
        check=False,
        capture_output=True,
        text=True,
    )
    report: dict[str, Any] = json.loads(run.stdout)
    assert run.returncode == bool(report["failures"]), run.stderr
    return report


def first(data: bytes, trust: TrustedRoot) -> set[int]:
    """Return the steps of the core at which the first verifier fails."""
    try:
        return {failure.step.value for failure in verify_bundle(parse_bundle(data), trust).failures} & set(CORE)
    except MalformedProof:
        return {0}


def test_both_verifiers_agree(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> None:
    with audited(sqlite_database, shortkeys, tmp_path) as site:
        consent = site.live()
        witness = Witness.init(tmp_path / "witness", "witness.example/1").watch(site.service.log)
        with listening(witness) as url:
            plan = WitnessPlan((WitnessSite(witness.key, url),), 1, 600)
            assert Witnesses(site.service.log, plan).ask(sqlite_database) == 1
        month = site.bundle()
        answer = parse_bundle(site.service.ask(site.service.consent()).content)
        trust = replace(site.service.trust, witnesses=WitnessPolicy((witness.key,), 1, 600))
    assert consent.version == 1
    for honest in (month, answer):
        data = dump_bundle(honest)
        report = second(data, trust, tmp_path)
        assert report["failures"] == []
        checked = verify_bundle(honest, trust).checked
        assert report["checked"] == {step.name.lower(): checked[step] for step in CORE}
        assert report["leaves"] == len(honest.leaves)
    for lie, steps in _lies(month).items():
        assert {failure["step"] for failure in second(lie, trust, tmp_path)["failures"]} == steps, lie[:200]
        assert first(lie, trust) >= steps - {0}
    other = replace(trust, log=replace(trust.log, public_key=SigningKey(new_seed()).public_key))
    assert {failure["step"] for failure in second(dump_bundle(month), other, tmp_path)["failures"]} == {1}


def _lies(month: Bundle) -> dict[bytes, set[int]]:
    data, denial = dump_bundle(month), leaf_of(month, LeafKind.DENIAL)
    some = month.leaves[3]
    flipped = replace(some, entry=some.entry[:-1] + bytes([some.entry[-1] ^ 1]))
    salted = replace(some, public=replace(some.public, salt=some.public.salt[1:] + b"\0"))
    assert month.witnessed is not None
    return {
        data[:-9]: {0},
        b"[" * 10_000 + b"\n": {0},
        b"\xff\n": {0},
        dump_bundle(replace(month, leaves=(flipped, *month.leaves[4:]))): {2},
        dump_bundle(replace(month, leaves=(*month.leaves[:3], salted, *month.leaves[4:]))): {3},
        dump_bundle(without(month, denial)): {3},
        dump_bundle(closed(month, denial)): {6},
        dump_bundle(replace(month, witnessed=None)): {13},
        dump_bundle(replace(month, witnessed=replace(month.witnessed, proof=()))): {13},
    }
