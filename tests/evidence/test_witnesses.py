"""Whoever trusts witnesses believes no bundle without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.audit_kit import Audited, failed
from tests.clients.test_witness import listening
from tests.consent_kit import NOW
from twinvault.witness import Witness
from vault.clock import unix_s
from vault.encoding import parse_b64u, parse_json
from vault.proof.bundle import Bundle, parse_bundle
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.note import parse_note
from vault.proof.verify import Step, verify_bundle
from vault.proof.witness import Witnessed, WitnessPolicy, cosign
from vault.seal.signing import SigningKey
from vault.tlog.witnesses import Witnesses, WitnessPlan, WitnessSite


def test_a_caller_who_trusts_witnesses_believes_no_bundle_without_them(quick: Audited, tmp_path: Path) -> None:
    """The answer's proof and the month's alike are joined to a tree that the witness saw."""
    consent = quick.live()
    key = quick.service.log
    witness = Witness.init(tmp_path / "witness", "witness.example/1").watch(key)
    trust = replace(quick.service.trust, witnesses=WitnessPolicy((witness.key,), 1, 600))
    alone = verify_bundle(quick.bundle(), trust)
    assert failed(alone) == {(Step.WITNESSES, None)}
    with listening(witness) as url:
        plan = WitnessPlan((WitnessSite(witness.key, url),), 1, 600)
        assert Witnesses(key, plan).ask(quick.service.database) == 1
    other = quick.service.consent()
    assert other.consent_id != consent.consent_id
    answered = parse_bundle(quick.service.ask(other).content)
    for found in (answered, quick.bundle()):
        report = verify_bundle(found, trust)
        assert (report.failures, report.checked[Step.WITNESSES]) == ((), 1)
        assert found.witnessed is not None
        assert found.witnessed.proof
        for lie in (None, replace(found.witnessed, proof=found.witnessed.proof[1:])):
            lying = verify_bundle(replace(found, witnessed=lie), trust)
            assert (Step.WITNESSES, None) in failed(lying)
    strict = replace(trust, witnesses=WitnessPolicy((witness.key,), 1, 1))
    old = replace(answered, witnessed=_older_view(quick, witness, answered))
    assert failed(verify_bundle(old, strict)) == {(Step.WITNESSES, None)}


def _older_view(site: Audited, witness: Witness, found: Bundle) -> Witnessed:
    """Return what the same witness would have signed a day before the newest event."""
    assert found.witnessed is not None
    key = site.service.log
    checkpoint = verify_checkpoint(found.witnessed.note, key, key.name)
    private = SigningKey(parse_b64u(parse_json((witness.folder / "witness.json").read_bytes())["seed"], size=32))
    [log_line, _] = parse_note(found.witnessed.note).signatures
    line = cosign(checkpoint, witness.key, private.sign, unix_s(NOW) - 86_400).line
    return replace(found.witnessed, note=f"{checkpoint.text}\n{log_line.line}{line}")
