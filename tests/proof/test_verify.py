"""Attacks on a bundle: whatever is changed, the verifier names the step and the leaf.

Two kinds of attacker. One alters the file: leaves no longer match the signed tree. The other is the
service itself, which holds the log's key and signs a tree over whatever it likes: then records and
leaves contradict each other or what others signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.answer_kit import ISSUER, OFFER, ORIGIN, Service, answer_in, running
from vault.db import Database
from vault.encoding import b64u, dump_json, parse_b64u
from vault.imprint.features import feature_map
from vault.proof.bundle import Bundle, LoggedLeaf, parse_bundle
from vault.proof.certificate import BUILT_IN, dump_manifest, parse_manifest
from vault.proof.checkpoint import Checkpoint
from vault.proof.leaf import LeafKind, Opening, make_entry
from vault.proof.merkle import inclusion_proof, leaf_hash, node_hash, range_root
from vault.proof.note import VerifierKey, sign_note
from vault.proof.verify import Report, Step, verify_bundle
from vault.schema.answer import answer_bytes, parse_answer
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.seal.dsse import PayloadType, parse_envelope, sign_record
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey, new_seed
from vault.twin.reader import closed_form


@dataclass
class Told:
    """One event as the lying service logs it anew."""

    kind: LeafKind
    public: dict[str, Any]
    personal: dict[str, Any]
    opened: bool


@dataclass
class Forge:
    """The events and records of an honest bundle, to be changed and signed again with the log's key."""

    service: Service
    events: list[Told]
    records: dict[str, bytes]

    @classmethod
    def of(cls, service: Service, bundle: Bundle) -> Forge:
        events = []
        for leaf in bundle.leaves:
            public = json.loads(leaf.public.body)
            personal = {} if leaf.personal is None else json.loads(leaf.personal.body)
            events.append(Told(LeafKind(public.pop("kind")), public, personal, leaf.personal is not None))
        return cls(service, events, {b64u(digest): data for digest, data in bundle.records.items()})

    def event(self, kind: LeafKind) -> Told:
        return next(event for event in reversed(self.events) if event.kind is kind)

    def index(self, kind: LeafKind) -> int:
        return max(at for at, event in enumerate(self.events) if event.kind is kind)

    def named(self, part: dict[str, Any], name: str) -> bytes:
        return self.records[part[name]]

    def swap(self, part: dict[str, Any], name: str, data: bytes) -> None:
        """Let a leaf name another record, and bring that along."""
        part[name] = b64u(sha256(data))
        self.records[part[name]] = data

    def swap_json(self, part: dict[str, Any], name: str, **changes: Any) -> None:
        record = json.loads(self.named(part, name))
        self.swap(part, name, dump_json(record | changes))

    def bundle(self, *, whole: bool = False) -> Bundle:
        """Sign a tree over the events as they are now."""
        made = [make_entry({"kind": event.kind.value, **event.public}, event.personal) for event in self.events]
        hashes = [leaf_hash(entry) for entry, _ in made]
        size = len(hashes)

        def hash_at(level: int, index: int) -> bytes:
            if level == 0:
                return hashes[index]
            return node_hash(hash_at(level - 1, 2 * index), hash_at(level - 1, 2 * index + 1))

        note = sign_note(
            Checkpoint(ORIGIN, size, range_root(0, size, hash_at)).text, self.service.log, self.service.log_key.sign
        )
        leaves = tuple(
            LoggedLeaf(
                at, entry, tuple(inclusion_proof(at, size, hash_at)), opened.public,
                opened.personal if event.opened else None,
            )
            for at, (event, (entry, opened)) in enumerate(zip(self.events, made, strict=True))
        )  # fmt: skip
        records = {sha256(data): data for data in self.records.values()}
        return Bundle(note, leaves, records, 0, size if whole else 0)


@dataclass
class Honest:
    service: Service
    content: bytes
    bundle: Bundle = field(init=False)

    def __post_init__(self) -> None:
        self.bundle = parse_bundle(self.content)

    def forge(self) -> Forge:
        return Forge.of(self.service, self.bundle)

    def verify(self, bundle: Bundle) -> Report:
        return verify_bundle(bundle, self.service.trust)


@pytest.fixture(scope="module")
def honest(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    """One real answer to a company, from a real service."""
    import shutil

    from vault.store.shortkeys import create_table

    folder = tmp_path_factory.mktemp("verify")
    shutil.copy(sqlite_template, folder / "vault.sqlite")
    database, shortkeys = Database(f"sqlite:///{folder}/vault.sqlite"), Database(f"sqlite:///{folder}/short.sqlite")
    create_table(shortkeys)
    service = Service(database, shortkeys, keyring=folder / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread")
    with running(service):
        response = service.ask(service.consent(), OFFER)
        answer_in(response)
        yield Honest(service, response.content)
    database.close()
    shortkeys.close()


def failures(report: Report) -> list[tuple[Step, int | None]]:
    return [(failure.step, failure.leaf_index) for failure in report.failures]


def test_an_honest_bundle_verifies_and_every_step_looked_at_something(honest: Honest) -> None:
    report = honest.verify(honest.bundle)
    assert report.failures == ()
    assert set(report.checked) == set(Step) - {Step.BUNDLE, Step.ERASURE, Step.WITNESSES, Step.LEDGER}, (
        "nothing was erased, no witness demanded, the range is not whole"
    )
    assert report.leaves == 5


def test_the_same_events_signed_again_verify(honest: Honest) -> None:
    assert honest.verify(honest.forge().bundle(whole=True)).failures == ()


def test_nothing_is_believed_under_another_trust(honest: Honest) -> None:
    trust, other = honest.service.trust, SigningKey(new_seed()).public_key
    for changed, step in (
        (replace(trust, log=VerifierKey(ORIGIN, other)), Step.CHECKPOINT),
        (replace(trust, origin="log.example/other"), Step.CHECKPOINT),
        (replace(trust, operator=other), Step.KEYS),
        (replace(trust, issuer="https://other.example"), Step.QUESTION),
    ):
        assert step in {failure.step for failure in verify_bundle(honest.bundle, changed).failures}


def _flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


FILE_ATTACKS: dict[str, tuple[Step, Callable[[LoggedLeaf], LoggedLeaf]]] = {
    "entry": (Step.INCLUSION, lambda leaf: replace(leaf, entry=_flip(leaf.entry))),
    "path": (Step.INCLUSION, lambda leaf: replace(leaf, path=(_flip(leaf.path[0]), *leaf.path[1:]))),
    "path cut": (Step.INCLUSION, lambda leaf: replace(leaf, path=leaf.path[1:])),
    "index": (Step.INCLUSION, lambda leaf: replace(leaf, index=leaf.index + 100)),
    "public salt": (Step.OPENINGS, lambda leaf: replace(leaf, public=Opening(_flip(leaf.public.salt), leaf.public.body))),
    "public body": (Step.OPENINGS, lambda leaf: replace(leaf, public=Opening(leaf.public.salt, leaf.public.body[:-1] + b" }"))),
    "parts exchanged": (Step.OPENINGS, lambda leaf: replace(leaf, public=leaf.personal or leaf.public, personal=leaf.public)),
    "personal half of another": (Step.OPENINGS, lambda leaf: replace(leaf, personal=leaf.public)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILE_ATTACKS)
def test_a_changed_leaf_is_named(honest: Honest, name: str) -> None:
    step, change = FILE_ATTACKS[name]
    for at in range(len(honest.bundle.leaves)):
        leaves = list(honest.bundle.leaves)
        leaves[at] = change(leaves[at])
        report = honest.verify(replace(honest.bundle, leaves=tuple(leaves)))
        assert (step, leaves[at].index) in failures(report), at


def test_a_changed_checkpoint_is_named(honest: Honest) -> None:
    note = honest.bundle.checkpoint
    origin, size, root, *rest = note.split("\n")
    for changed in ("", "x", note[:-2], "\n".join([origin, str(int(size) + 1), root, *rest])):
        report = honest.verify(replace(honest.bundle, checkpoint=changed))
        assert failures(report) == [(Step.CHECKPOINT, None)]
        assert set(report.checked) == {Step.CHECKPOINT}


def test_a_record_that_is_missing_or_changed_is_named(honest: Honest) -> None:
    """Every record but the consent request, which the person's signature stands for, is needed; none may differ."""
    needed = 0
    for digest, data in honest.bundle.records.items():
        rest = {key: value for key, value in honest.bundle.records.items() if key != digest}
        changed = _flip(data)
        for records in (rest, {**rest, sha256(changed): changed}):
            needed += bool(honest.verify(replace(honest.bundle, records=records)).failures)
    assert needed == 2 * len(honest.bundle.records) - 1


def test_a_leaf_that_is_missing_is_named(honest: Honest) -> None:
    answer = honest.bundle.leaves[-1].index
    steps = {
        LeafKind.POLICY_SET: Step.DECISION,
        LeafKind.MANIFEST: Step.CERTIFICATE,
        LeafKind.COMPANY: Step.QUESTION,
        LeafKind.CONSENT: Step.ORDER,
    }
    for leaf in honest.bundle.leaves[:-1]:
        kind = LeafKind(json.loads(leaf.public.body)["kind"])
        leaves = tuple(other for other in honest.bundle.leaves if other is not leaf)
        assert (steps[kind], answer) in failures(honest.verify(replace(honest.bundle, leaves=leaves))), kind


def _answer(forge: Forge, **changes: Any) -> None:
    event = forge.event(LeafKind.ANSWER)
    changed = replace(parse_answer(forge.named(event.personal, "record")), **changes)
    forge.swap(event.personal, "record", answer_bytes(changed))


def _other_answer(forge: Forge) -> None:
    answer = parse_answer(forge.named(forge.event(LeafKind.ANSWER).personal, "record"))
    _answer(forge, consent_id=_flip(answer.consent_id))


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
    from tests.company_kit import CompanyKit

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


def _company_registered_later(forge: Forge) -> None:
    event = forge.event(LeafKind.COMPANY)
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
    version, _ = _version(forge)
    withdrawn = forge.service.next(version, ConsentEvent.WITHDRAWN)
    envelope = forge.service.signed(withdrawn)
    told = Told(given.kind, dict(given.public), {**given.personal, "version": 2, "consent_seq": 2}, opened=True)
    forge.swap(told.personal, "record", envelope.encoded)
    told.personal["prev"] = b64u(sha256(dump_json(given.personal)))
    answer = forge.event(LeafKind.ANSWER)
    _answer(forge, consent_version=2)
    answer.personal |= {"version": 2, "consent_seq": 3, "prev": b64u(sha256(dump_json(told.personal)))}
    forge.events.insert(forge.events.index(answer), told)


def _version(forge: Forge) -> tuple[Any, Any]:
    from vault.schema.consent import parse_consent
    from vault.seal.dsse import unverified_record

    envelope = parse_envelope(forge.named(forge.event(LeafKind.CONSENT).personal, "record"))
    return parse_consent(unverified_record(envelope)), envelope


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


def _uncertified(forge: Forge) -> None:
    _manifest(forge, forge.service.worker_key, model_sha256=b"m" * 32)


def _manifest_of_a_stranger(forge: Forge) -> None:
    _manifest(forge, SigningKey(new_seed()))


def _manifest_logged_later(forge: Forge) -> None:
    event = forge.event(LeafKind.MANIFEST)
    forge.events.remove(event)
    forge.events.append(event)


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
    "company registered later": (Step.QUESTION, LeafKind.ANSWER, _company_registered_later),
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
    "rules that were never logged": (Step.DECISION, LeafKind.ANSWER, _lenient_rules),
    "model without a certificate": (Step.CERTIFICATE, LeafKind.ANSWER, _uncertified),
    "manifest of a stranger": (Step.CERTIFICATE, LeafKind.ANSWER, _manifest_of_a_stranger),
    "manifest logged later": (Step.CERTIFICATE, LeafKind.ANSWER, _manifest_logged_later),
    "quota overdrawn": (Step.QUOTA, LeafKind.ANSWER, _overdrawn),
    "answer counted in another month": (Step.QUOTA, LeafKind.ANSWER, _other_month),
}  # fmt: skip


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
    version, _ = _version(forge)
    answer = forge.event(LeafKind.ANSWER)
    for number in range(version.terms.quota_per_month):
        last = forge.events[-1].personal
        again = Told(answer.kind, dict(answer.public), dict(answer.personal), opened=True)
        again.personal |= {
            "consent_seq": last["consent_seq"] + 1,
            "prev": b64u(sha256(dump_json(last))),
            "quota_left": 0,
        }
        forge.events.append(again)
        del number
    assert (Step.QUOTA, forge.index(LeafKind.ANSWER)) in failures(honest.verify(forge.bundle()))


def test_the_built_in_model_is_the_one_that_needs_no_certificate() -> None:
    assert {closed_form(feature_map(Category("pd:Purchase"))).digest} == BUILT_IN


def test_an_empty_bundle_checks_nothing(honest: Honest) -> None:
    report = honest.verify(replace(honest.bundle, leaves=(), records={}))
    assert set(report.checked) == {Step.CHECKPOINT, Step.OPENINGS}
