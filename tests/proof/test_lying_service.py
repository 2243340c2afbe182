"""A service that lies: it holds the log's key and signs a tree over whatever it likes.

Then records and leaves contradict each other or what others signed, and the verifier names the step and the leaf.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.answer_kit import ISSUER
from tests.company_kit import CompanyKit
from tests.proof.forge import Forge, Honest, Told, failures, flip
from vault.encoding import b64u, dump_json, parse_b64u
from vault.proof.certificate import dump_manifest, parse_manifest
from vault.proof.established import Carried, Evidence
from vault.proof.leaf import LeafKind
from vault.proof.verify import Step
from vault.schema.answer import answer_bytes, parse_answer
from vault.schema.consent import ConsentEvent, ConsentVersion, parse_consent
from vault.seal.dsse import PayloadType, parse_envelope, sign_record, unverified_record
from vault.seal.errors import SealError
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey, new_seed
from vault.seal.statement import KeyName, verify_key_statement


def _answer(forge: Forge, **changes: Any) -> None:
    event = forge.event(LeafKind.ANSWER)
    changed = replace(parse_answer(forge.named(event.personal, "record")), **changes)
    forge.swap(event.personal, "record", answer_bytes(changed))


def _other_answer(forge: Forge) -> None:
    answer = parse_answer(forge.named(forge.event(LeafKind.ANSWER).personal, "record"))
    _answer(forge, consent_id=flip(answer.consent_id))


def _not_offered(forge: Forge) -> None:
    answer = parse_answer(forge.named(forge.event(LeafKind.ANSWER).personal, "record"))
    first = replace(answer.predictions[0], code="acme:sold-out", score_ppm=1_000_000)
    _answer(forge, predictions=(first,))


def _question_not_signed(forge: Forge) -> None:
    forge.swap_json(forge.event(LeafKind.ANSWER).personal, "question", jws="a.b.c")


def _other_body(forge: Forge) -> None:
    forge.swap_json(forge.event(LeafKind.ANSWER).personal, "question", body=b64u(b'{"kind":"next_choice"}'))


def _thiefs_company(forge: Forge) -> None:
    """The service puts its own question key into the company's record, and signs record and question with it."""
    thief = CompanyKit()
    thief.company_id = forge.service.company.company_id
    at = forge.service.clock.at
    forge.swap(forge.event(LeafKind.COMPANY).public, "record_sha256", thief.record(at).encode())
    event = forge.event(LeafKind.ANSWER)
    answer = parse_answer(forge.named(event.personal, "record"))
    body = parse_b64u(json.loads(forge.named(event.personal, "question"))["body"])
    signed = thief.signed_question(ISSUER, answer.consent_id, answer.question_id, body, at)
    forge.swap_json(event.personal, "question", jws=signed)


def _suspended(forge: Forge) -> None:
    public = {"company": forge.service.company.company_id, "status": "suspended", "at": 1}
    forge.events.insert(-1, Told(LeafKind.COMPANY_STATUS, public, {}, opened=False))


def _logged_later(forge: Forge, kind: LeafKind) -> None:
    event = forge.event(kind)
    forge.events.remove(event)
    forge.events.append(event)


def _forged_consent(forge: Forge) -> None:
    """The service widens the consent and signs it with a key of its own."""
    event = forge.event(LeafKind.CONSENT)
    record = json.loads(parse_envelope(forge.named(event.personal, "record")).payload)
    record["terms"]["quota_per_month"] = 1_000
    forge.swap(event.personal, "record", sign_record(PayloadType.CONSENT, record, SigningKey(new_seed())).encoded)


def _consent_about_another(forge: Forge) -> None:
    forge.event(LeafKind.CONSENT).personal["grantee"] = "B" * 22


def _answer_after_withdrawal(forge: Forge) -> None:
    """A real withdrawal, logged between consent and answer."""
    given = forge.event(LeafKind.CONSENT)
    version = _version(forge)
    withdrawn = forge.service.next(version, ConsentEvent.WITHDRAWN)
    envelope = forge.service.signed(withdrawn)
    public = {**given.public, "event_state": withdrawn.event.state}
    said = {"version": 2, "event": withdrawn.event.value, "at": withdrawn.event_time, "consent_seq": 2}
    told = Told(given.kind, public, {**given.personal, **said}, opened=True)
    forge.swap(told.personal, "record", envelope.encoded)
    told.personal["prev"] = b64u(sha256(dump_json(given.personal)))
    answer = forge.event(LeafKind.ANSWER)
    _answer(forge, consent_version=2)
    answer.personal |= {"version": 2, "consent_seq": 3, "prev": b64u(sha256(dump_json(told.personal)))}
    forge.events.insert(forge.events.index(answer), told)


def _version(forge: Forge) -> ConsentVersion:
    envelope = parse_envelope(forge.named(forge.event(LeafKind.CONSENT).personal, "record"))
    return parse_consent(unverified_record(envelope))


def _exchanged_before(forge: Forge) -> None:
    forge.event(LeafKind.CONSENT).personal["at"] = 7


def _renumbered(forge: Forge) -> None:
    forge.event(LeafKind.ANSWER).personal["consent_seq"] = 1


def _decision(forge: Forge, change: Callable[[Any], None]) -> None:
    event = forge.event(LeafKind.ANSWER)
    record = json.loads(forge.named(event.personal, "decision"))
    change(record)
    forge.swap(event.personal, "decision", dump_json(record))


def _attrs(record: Any, kind: str) -> Any:
    return next(entity["attrs"] for entity in record["entities"] if entity["uid"]["type"] == f"Vault::{kind}")


def _lenient_rules(forge: Forge) -> None:
    """The service decides under rules of its own that it never logged."""
    event = forge.event(LeafKind.ANSWER)
    source = json.loads(forge.named(event.public, "policy_set"))
    source["policies"] = {
        "all.cedar": '@id("all") @visibility("owner") @sentence("All.") permit(principal, action, resource);'
    }
    data = dump_json(source)
    forge.swap(event.public, "policy_set", data)
    _decision(forge, lambda record: record.update(policy_set_sha256=b64u(sha256(data))))
    _answer(forge, policy_set_sha256=sha256(data))


def _manifest(forge: Forge, signer: SigningKey, **changes: Any) -> None:
    event, logged = forge.event(LeafKind.ANSWER), forge.event(LeafKind.MANIFEST)
    manifest = parse_manifest(parse_envelope(forge.named(event.public, "manifest")).payload)
    changed = replace(manifest, **changes)
    envelope = sign_record(PayloadType.MANIFEST, json.loads(dump_manifest(changed)), signer).encoded
    forge.swap(event.public, "manifest", envelope)
    logged.public["record"] = event.public["manifest"]
    event.public["model"] = b64u(changed.digest)
    _answer(forge, model_sha256=changed.digest)


def _told_more_than_the_quota(record: Any) -> None:
    context = record["context"]
    context.update(quota_left=context["quota_left"] + 1, agent_quota_left=context["agent_quota_left"] + 1)


def _uncertified(forge: Forge) -> None:
    _manifest(forge, forge.service.worker_key, model_sha256=b"m" * 32)


def _manifest_of_a_stranger(forge: Forge) -> None:
    _manifest(forge, SigningKey(new_seed()))


def _overdrawn(forge: Forge) -> None:
    forge.event(LeafKind.ANSWER).personal["quota_left"] = 5


def _other_month(forge: Forge) -> None:
    forge.event(LeafKind.ANSWER).public["period"] = "2026-10"


SERVICE_ATTACKS: dict[str, tuple[Step, LeafKind, Callable[[Forge], None]]] = {
    "answer about another consent": (Step.ANSWER, LeafKind.ANSWER, _other_answer),
    "answer of another time": (Step.ANSWER, LeafKind.ANSWER, lambda f: _answer(f, asked_at=1)),
    "answer names what was not offered": (Step.QUESTION, LeafKind.ANSWER, _not_offered),
    "question not signed": (Step.QUESTION, LeafKind.ANSWER, _question_not_signed),
    "question with another body": (Step.QUESTION, LeafKind.ANSWER, _other_body),
    "question for another purpose": (Step.QUESTION, LeafKind.ANSWER, lambda f: f.event(LeafKind.ANSWER).public.update(purpose="dpv:Advertising")),
    "another requester": (Step.QUESTION, LeafKind.ANSWER, lambda f: f.event(LeafKind.ANSWER).personal.update(requester="B" * 22)),
    "company with the thief's key": (Step.QUESTION, LeafKind.ANSWER, _thiefs_company),
    "company suspended before": (Step.DECISION, LeafKind.ANSWER, _suspended),
    "company registered later": (Step.QUESTION, LeafKind.ANSWER, lambda f: _logged_later(f, LeafKind.COMPANY)),
    "consent the person did not sign": (Step.CONSENT, LeafKind.CONSENT, _forged_consent),
    "consent to another grantee": (Step.CONSENT, LeafKind.CONSENT, _consent_about_another),
    "answer after the withdrawal": (Step.ORDER, LeafKind.ANSWER, _answer_after_withdrawal),
    "event before exchanged": (Step.ORDER, LeafKind.ANSWER, _exchanged_before),
    "events renumbered": (Step.ORDER, LeafKind.ANSWER, _renumbered),
    "decision on a frozen twin": (Step.DECISION, LeafKind.ANSWER, lambda f: _decision(f, lambda r: _attrs(r, "Twin").update(frozen=1))),
    "decision on wider terms": (Step.DECISION, LeafKind.ANSWER, lambda f: _decision(f, lambda r: _attrs(r, "Consent").update(influence_opt_in=1))),
    "decision about another question": (Step.DECISION, LeafKind.ANSWER, lambda f: _decision(f, lambda r: r["context"].update(question="next_choice"))),
    "decision at another time": (Step.DECISION, LeafKind.ANSWER, lambda f: _decision(f, lambda r: r["context"].update(now=r["context"]["now"] + 1))),
    "decision about another category": (Step.DECISION, LeafKind.ANSWER, lambda f: _decision(f, lambda r: r["context"].update(categories=["pd:Location"]))),
    "decision told more than the quota": (Step.DECISION, LeafKind.ANSWER, lambda f: _decision(f, _told_more_than_the_quota)),
    "company's record told as a later one": (Step.RECORDS, LeafKind.COMPANY, lambda f: f.event(LeafKind.COMPANY).public.update(version=2)),
    "rules that were never logged": (Step.DECISION, LeafKind.ANSWER, _lenient_rules),
    "model without a certificate": (Step.CERTIFICATE, LeafKind.ANSWER, _uncertified),
    "manifest of a stranger": (Step.CERTIFICATE, LeafKind.ANSWER, _manifest_of_a_stranger),
    "manifest logged later": (Step.CERTIFICATE, LeafKind.ANSWER, lambda f: _logged_later(f, LeafKind.MANIFEST)),
    "quota overdrawn": (Step.QUOTA, LeafKind.ANSWER, _overdrawn),
    "answer counted in another month": (Step.QUOTA, LeafKind.ANSWER, _other_month),
}  # fmt: skip


def test_the_same_events_signed_again_verify(honest: Honest) -> None:
    assert honest.verify(honest.forge().bundle(whole=True)).failures == ()


@pytest.mark.parametrize("name", SERVICE_ATTACKS)
def test_a_lying_service_is_named(honest: Honest, name: str) -> None:
    step, kind, attack = SERVICE_ATTACKS[name]
    forge = honest.forge()
    attack(forge)
    report = honest.verify(forge.bundle())
    assert (step, forge.index(kind)) in failures(report), report.failures


def test_a_withheld_event_is_named_in_a_range_claimed_whole(honest: Honest) -> None:
    forge = honest.forge()
    forge.event(LeafKind.ANSWER).personal["consent_seq"] = 4
    assert honest.verify(forge.bundle()).failures == ()  # one answer's bundle does not show its consent's other events
    assert (Step.ORDER, forge.index(LeafKind.ANSWER)) in failures(honest.verify(forge.bundle(whole=True)))
    whole = forge.bundle(whole=True)
    report = honest.verify(replace(whole, leaves=whole.leaves[1:]))
    assert (Step.OPENINGS, 0) in failures(report)


def test_a_denial_outside_of_any_chain_is_no_failure(honest: Honest) -> None:
    forge = honest.forge()
    for at in (1, 2):
        personal = {"requester": "B" * 22, "question_id": "q", "at": at, "decision": "", "rules": ["not-yours"]}
        forge.events.append(Told(LeafKind.DENIAL, {"period": "2026-11"}, personal, opened=True))
    assert honest.verify(forge.bundle(whole=True)).failures == ()


def test_more_answers_than_the_quota_are_named(honest: Honest) -> None:
    forge = honest.forge()
    answer = forge.event(LeafKind.ANSWER)
    left = answer.personal["quota_left"]
    for counted in range(left + 1):  # down to one below nothing
        last = forge.events[-1].personal
        again = Told(answer.kind, dict(answer.public), dict(answer.personal), opened=True)
        again.personal |= {
            "consent_seq": last["consent_seq"] + 1,
            "prev": b64u(sha256(dump_json(last))),
            "quota_left": left - 1 - counted,
        }
        forge.events.append(again)
    assert (Step.QUOTA, forge.index(LeafKind.ANSWER)) in failures(honest.verify(forge.bundle()))


def test_failures_of_what_runs_apart_stand_where_their_step_is(honest: Honest) -> None:
    """A decision that is denied and made on other terms counts once, as denied, whoever decided it again."""
    forge = honest.forge()

    def spoil(record: Any) -> None:
        _attrs(record, "Twin").update(frozen=1)
        _attrs(record, "Consent").update(influence_opt_in=1)

    _decision(forge, spoil)
    _overdrawn(forge)
    forge.swap_json(forge.event(LeafKind.ANSWER).personal, "question", jws="a.b.c")
    report = honest.verify(forge.bundle())
    assert [failure.step for failure in report.failures][:3] == [Step.QUESTION, Step.DECISION, Step.QUOTA]
    assert "denies it: vault-frozen" in report.failures[1].detail
    assert report.checked[Step.DECISION] == 1


def test_a_signature_is_seen_to_hold_for_one_record_alone(honest: Honest) -> None:
    forge, evidence = honest.forge(), Evidence(honest.bundle, honest.service.trust, Carried())
    for record in honest.bundle.records.values():
        if PayloadType.KEY.encode() in record[:24]:
            evidence.keys[b64u(sha256(record))] = verify_key_statement(parse_envelope(record), evidence.trust.operator)
    manifest = parse_envelope(forge.named(forge.event(LeafKind.ANSWER).public, "manifest"))
    [(key, signature)] = manifest.signatures
    for _ in range(2):
        evidence.verify_signed(manifest, PayloadType.MANIFEST, KeyName.PROCESSOR_SIGN)
        with pytest.raises(SealError):
            evidence.verify_signed(
                replace(manifest, signatures=((key, flip(signature)),)), PayloadType.MANIFEST, KeyName.PROCESSOR_SIGN
            )
