"""A service that invents an erasure to bury what it would rather not show: only the person's key buries, or it is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.answer_kit import ORIGIN
from tests.audit_kit import Audited, failed, kind_of, verify
from tests.evidence.test_tombstones import erase_all, erased_on_order
from twinvault.receipts import verify_logged
from vault.clock import DAY_S, unix_s
from vault.consent.events import record_event
from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.proof.bound import bind
from vault.proof.bundle import Bundle, records_by_hash
from vault.proof.checkpoint import Checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind, make_entry
from vault.proof.merkle import leaf_hash
from vault.proof.note import VerifierKey, sign_note
from vault.proof.ordered import is_subject_erasure, orders_by_subject, verify_ordered
from vault.proof.receipt import Receipt
from vault.proof.tombstone import dump_tombstone, is_tombstone, parse_tombstone
from vault.proof.trust import TrustedRoot
from vault.proof.verify import Step
from vault.schema.consent import ConsentVersion
from vault.seal.derive import subject_of
from vault.seal.dsse import PayloadType
from vault.seal.framing import frames
from vault.seal.ids import ConsentId, SubjectId
from vault.seal.signing import SigningKey, new_seed
from vault.seal.subject_erasure import SubjectErasure, sign_subject_erasure
from vault.tlog import log, tombstones

Signed = dict[SubjectId, bytes]


def order(key: SigningKey, day: int, name: str = ORIGIN) -> Signed:
    return {subject_of(key.public_key): sign_subject_erasure(name, day, key).encoded}


def bury(site: Audited, leaf_ids: Iterable[int], signed: Signed, author: str = "owner", said: str = "owner") -> None:
    """Bury events, and invent an erasure from which it followed."""
    with site.service.database.transaction() as session:
        public = {"scope": "person", "author": said, "period": "2026-11"}
        erasure = log.append(session, LeafKind.ERASURE, public, {})
        with tombstones.following(session, erasure.id, author, signed):
            log.delete_personal_openings(session, [log.PendingId(leaf) for leaf in leaf_ids])


def shown(site: Audited) -> Bundle:
    """Return the month without the signed version that a careless service would still show beside what it buried."""
    found = site.bundle()
    halves = [parse_json(one.body) for leaf in found.leaves for one in (leaf.public, leaf.personal) if one is not None]
    named = {value for half in halves for value in half.values() if isinstance(value, str)}
    records = {digest: data for digest, data in found.records.items() if b64u(digest) in named or not is_consent(data)}
    return replace(found, records=records)


def is_consent(record: bytes) -> bool:
    return record.startswith(frames(PayloadType.CONSENT.encode()))


def told(bundle: Bundle, change: Callable[[JsonObject], object]) -> Bundle:
    """Change what every tombstone of a bundle says."""
    stones = [parse_json(record) for record in bundle.records.values() if is_tombstone(record)]
    for said in stones:
        change(said)
    rest = [record for record in bundle.records.values() if not is_tombstone(record)]
    return replace(bundle, records=records_by_hash([*rest, *map(dump_json, stones)]))


@pytest.fixture
def withdrawn(quick: Audited) -> tuple[Audited, ConsentVersion, list[int]]:
    """A month, a consent that was withdrawn in it, and the events from the withdrawal on."""
    consent = quick.live()
    with quick.service.database.snapshot() as session:
        chain = [
            (parse_json(leaf.personal.body)["consent_seq"], leaf.pending_id)
            for leaf in log.find(session, about=quick.service.owner.vault, limit=1_000)
            if leaf.personal is not None and parse_json(leaf.personal.body).get("consent") == b64u(consent.consent_id)
            if "consent_seq" in parse_json(leaf.personal.body)
        ]
    return quick, consent, [leaf for _, leaf in sorted(chain)[-2:]]


def test_a_withdrawal_is_not_buried_without_the_persons_key(
    withdrawn: tuple[Audited, ConsentVersion, list[int]],
) -> None:
    site, consent, buried = withdrawn
    day = unix_s(site.service.clock.at) // DAY_S
    theirs, mine = site.service.signer(consent.terms.grantee), SigningKey(new_seed())
    bury(site, buried, order(mine, day))
    found = shown(site)
    gone = {leaf.index for leaf in found.leaves if kind_of(leaf) in {"consent", "denial"} and leaf.personal is None}
    assert len(gone) == len(buried) == 2

    def tried(bundle: Bundle) -> set[tuple[Step, int | None]]:
        return failed(verify(site, bundle))

    bare = {(Step.ERASURE, index) for index in gone}
    assert tried(found) == bare
    as_mine = told(found, lambda said: said.update(subject=b64u(subject_of(mine.public_key))))
    assert tried(as_mine) == bare, "the event is bound to another"

    def beside(*orders: Signed) -> Bundle:
        kept = [record for record in found.records.values() if not is_subject_erasure(record)]
        return replace(found, records=records_by_hash([*kept, *(one for some in orders for one in some.values())]))

    assert tried(beside(order(theirs, day, "another.example/log"))) == bare
    assert tried(beside(order(theirs, day - 3))) == bare, "an order of before does not reach what came after it"
    forged = {key: data[:-1] + bytes([data[-1] ^ 1]) for key, data in order(theirs, day).items()}
    assert tried(beside(forged)) == bare
    another = order(site.service.signer("B" * 22), day)
    assert tried(beside(another, order(mine, day))) == bare
    assert tried(told(beside(order(theirs, day)), lambda said: said.update(subject_salt=b64u(bytes(64))))) == bare
    assert tried(told(beside(order(theirs, day)), lambda said: said.update(subject="", subject_salt=""))) == bare
    honest = verify(site, beside(order(theirs, day)))
    assert (honest.failures, honest.erased) == ((), {"owner": 2})


def test_an_old_order_buries_nothing_at_the_beginning_of_a_stretch_either(
    withdrawn: tuple[Audited, ConsentVersion, list[int]],
) -> None:
    """Where nothing is dated before it: an order that the service refused to carry out, and kept."""
    site, consent, buried = withdrawn
    day = unix_s(site.service.clock.at) // DAY_S
    bury(site, buried, order(site.service.signer(consent.terms.grantee), day - 60))
    gone = [leaf.index for leaf in shown(site).leaves if kind_of(leaf) in {"consent", "denial"} and not leaf.personal]
    assert failed(verify(site, site.bundle(gone[0]))) == {(Step.ERASURE, index) for index in gone}


@pytest.mark.parametrize(
    ("period", "is_reached"),
    [("2026-11", True), ("0000-00", True), ("2026-12", False), ("2026-1", False), ("2026-11 ", False), (202611, False), (None, False)],
)  # fmt: skip
def test_an_event_is_of_a_month_that_its_owners_order_reaches(period: JsonValue, is_reached: bool) -> None:
    key = SigningKey(new_seed())
    subject = subject_of(key.public_key)
    public, opens = bind(subject)
    (said,) = orders_by_subject(order(key, 20_784).values(), ORIGIN).values()  # 27 November 2026
    forever = SubjectErasure(ORIGIN, key.public_key, 2**53 - 1)
    for one, reached in ((said, is_reached), (forever, is_reached or period == "2026-12")):
        evidence: Any = SimpleNamespace(
            hides_subjects=False, subject_erasures={subject: one}, dated_before=lambda _: 0, erased=Counter()
        )
        stone: Any = SimpleNamespace(leaf=1, member=1, subject=subject, subject_salt=parse_b64u(opens["subject_salt"]))
        with nullcontext() if reached else pytest.raises(InvalidProof, match="older than the event"):
            verify_ordered(evidence, stone, "owner", {**public, "period": period})
        assert evidence.erased["owner"] == reached


def test_an_answer_after_a_buried_withdrawal_does_not_look_allowed(quick: Audited) -> None:
    """The chain goes on with the withdrawal's number, as if it had never been: only the tombstone tells."""
    quick.live()
    service = quick.service
    consent = service.consent()
    with service.database.snapshot() as session:
        row = session.connection().exec_driver_sql(
            "SELECT consent_seq, last_event FROM consent WHERE consent_id = ?", (consent.consent_id,)
        )
        place = row.one()
    service.withdraw(consent)
    withdrawal = quick.settle()
    with service.database.transaction() as session:
        leaf = next(one for one in reversed(log.find(session, kind=LeafKind.CONSENT)) if one.index < withdrawal)
        session.connection().exec_driver_sql("DROP TRIGGER consent_seq_dense")  # it keeps nobody from lying
        session.connection().exec_driver_sql(
            "UPDATE consent SET consent_seq = ?, last_event = ? WHERE consent_id = ?", (*place, consent.consent_id)
        )
    bury(quick, [leaf.pending_id], {})
    with service.database.transaction() as session:
        denied = {
            "rules": [],
            "requester": service.company.company_id,
            "question_id": "",
            "question": "",
            "decision": "",
        }
        event = record_event(
            session, ConsentId(consent.consent_id), LeafKind.DENIAL, {"period": "2026-11"},
            {**denied, "at": unix_s(service.clock.at)},
        )  # fmt: skip
    service.sequencer.wait(event.id, 20)
    found = failed(verify(quick, shown(quick)))
    assert found == {(Step.ERASURE, leaf.index)}


@pytest.mark.parametrize("author", ["operator", "executors", "again"])
def test_what_is_buried_by_word_alone_is_counted_by_whose(
    withdrawn: tuple[Audited, ConsentVersion, list[int]], author: str
) -> None:
    site, _, buried = withdrawn
    said = {"again": 1, "author": "owner"} if author == "again" else {"author": author}
    with erased_on_order(site, **said) as session:  # type: ignore[arg-type]
        log.delete_personal_openings(session, [log.PendingId(leaf) for leaf in buried])
        # What the rest of the transaction does is the helper's: it follows from the erasure by its author.
    found = shown(site)
    stones = [parse_tombstone(record) for record in found.records.values() if is_tombstone(record)]
    assert [(stone.subject, stone.subject_salt) for stone in stones] == [(b"", b"")] * 2, "nobody proves whose it was"
    report = verify(site, found)
    assert (report.failures, report.erased) == ((), {author: 2})


@pytest.mark.parametrize(
    ("author", "said"), [("owner", "operator"), ("operator", "owner"), ("", "operator"), ("me", "me")]
)
def test_a_group_says_whose_order_its_erasures_say(
    withdrawn: tuple[Audited, ConsentVersion, list[int]], author: str, said: str
) -> None:
    site, consent, buried = withdrawn
    day = unix_s(site.service.clock.at) // DAY_S
    bury(site, buried, order(site.service.signer(consent.terms.grantee), day), author, said)
    report = verify(site, shown(site))
    assert len(report.failures) == 2
    assert all(failure.step is Step.ERASURE for failure in report.failures)
    assert all("by somebody else than it says" in failure.detail for failure in report.failures)


def test_one_persons_order_buries_nothing_of_anothers(quick: Audited) -> None:
    quick.live()
    erase_all(quick)
    found = quick.bundle()
    report = verify(quick, found)
    assert report.failures == ()
    assert report.erased == {"owner": report.checked[Step.ERASURE]}
    stones = [parse_tombstone(record) for record in found.records.values() if is_tombstone(record)]
    assert len({stone.subject for stone in stones}) == 3, "the owner's, the operator's and the company's"
    rest = [record for record in found.records.values() if not is_tombstone(record)]
    first = stones[0]
    other = next(stone for stone in stones if stone.subject != first.subject)
    swapped = [replace(first, subject=other.subject), *stones[1:]]
    lie = replace(found, records=records_by_hash([*rest, *map(dump_tombstone, swapped)]))
    assert failed(verify(quick, lie)) == {(Step.ERASURE, first.leaf)}


@pytest.mark.parametrize("kind", [LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.DENIAL])
def test_an_event_bound_to_another_key_is_named_while_it_is_open(quick: Audited, kind: LeafKind) -> None:
    """Else a service could prepare, when it logs an event, to bury it later by an order of its own."""
    from tests.proof.forge import Forge  # as a liar signs it

    quick.live()
    month = quick.bundle()
    for said in (bind(SubjectId(bytes(16)))[0], {"bound": ""}):
        forge = Forge.of(quick.service, month)
        event = next(one for one in reversed(forge.events) if one.kind is kind and "consent" in one.personal)
        event.public.update(said)
        at = forge.events.index(event)
        lie = replace(forge.bundle(whole=True), withheld=month.withheld)
        assert (Step.ORDER, at) in failed(verify(quick, lie))


def test_a_client_refuses_a_receipt_of_an_event_that_another_key_could_bury() -> None:
    key, subject = SigningKey(new_seed()), SubjectId(b"s" * 16)
    trust = TrustedRoot("https://vault.example", ORIGIN, VerifierKey(ORIGIN, key.public_key), bytes(32))

    def receipt(public: JsonObject, personal: JsonObject) -> dict[str, object]:
        entry, opened = make_entry({"kind": "consent", **public}, personal)
        note = sign_note(Checkpoint(ORIGIN, 1, leaf_hash(entry)).text, trust.log, key.sign)
        public_half, personal_half = (
            {"salt": b64u(one.salt), "body": b64u(one.body)} for one in (opened.public, opened.personal)
        )
        return {
            "proof": Receipt(0, (), note).text, "entry": b64u(entry), "public": public_half, "personal": personal_half,
        }  # fmt: skip

    public, personal = bind(subject)
    mine = {**personal, "subject": b64u(subject)}
    assert verify_logged(receipt(public, mine), trust).personal == mine
    assert verify_logged(receipt({}, {}), trust).personal == {}, "what is about no subject is bound to none"
    others = {**personal, "subject": b64u(b"o" * 16)}
    for said in ((public, others), (bind(None)[0], mine), ({}, mine), (public, {**mine, "subject_salt": ""})):
        with pytest.raises(InvalidProof, match="bound"):
            verify_logged(receipt(*said), trust)
