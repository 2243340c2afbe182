"""An auditor that chooses whose decisions it sees: what its listing tells, whom, and how often."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.answer_kit import ISSUER
from tests.audit_kit import Audited, kind_of
from tests.consent_kit import NOW
from tests.evidence.test_floods import denied, publish
from tests.evidence.test_tombstones import erase_all
from tests.listing_kit import AT_S, ask, bundle_of, busiest, compared, engaged, listed, row_of
from tests.waiting import together
from vault.answers.floods import ALONE
from vault.clock import unix_s
from vault.encoding import b64u, parse_json
from vault.evidence.auditors import SETTLED_S, AuditScope, BadAuditor, register_auditor
from vault.notices.feed import notices
from vault.proof.bundle import dump_bundle
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.listing import COUNTED, parse_listing
from vault.proof.member import is_member, parse_member
from vault.proof.ordered import is_subject_erasure
from vault.proof.report import Step
from vault.proof.sampled import Tally
from vault.proof.tombstone import is_tombstone, parse_tombstone
from vault.proof.verify import verify_bundle
from vault.seal.audit import ListingRequest, sign_listing_request
from vault.seal.ids import new_id
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.errors import LogBusy
from vault.tlog.log import PendingId


def test_an_auditor_chooses_and_sees_no_more_than_it_chose(site: Audited) -> None:
    consent = site.live()
    key = engaged(site)
    listing = listed(site, key)
    assert not any(row.opened for row in listing.rows)
    row = busiest(listing)
    assert row.counts == {LeafKind.CONSENT: 3, LeafKind.ANSWER: 2, LeafKind.DENIAL: 2}
    assert (len(listing.rows), listing.alone, row.grantee) == (3, 1, site.service.company.company_id)
    chosen = listed(site, key, row.consent)
    opened = row_of(chosen, row).opened
    assert opened is not None
    assert opened.consent == consent.consent_id
    bundle = bundle_of(site, key, chosen)
    personal = [parse_json(leaf.personal.body) for leaf in bundle.leaves if leaf.personal is not None]
    assert {event["consent"] for event in personal if "consent" in event} == {b64u(consent.consent_id)}
    others = [event.personal for event in _events(site) if event.consent != b64u(consent.consent_id)]
    data = b"\n".join([dump_bundle(bundle), *bundle.records.values()])
    for event in others:
        for name in ("consent", "subject", "record", "decision", "question"):
            assert str(event.get(name) or "-" * 9).encode() not in data, name
    report = compared(site, chosen, bundle)
    assert (report.failures, report.checked[Step.LISTING]) == ((), 2 + len(COUNTED) + 1)


class _Told:
    def __init__(self, personal: dict[str, object]) -> None:
        self.personal, self.consent = personal, personal.get("consent")


def _events(site: Audited) -> list[_Told]:
    whole = site.bundle()
    return [_Told({**parse_json(leaf.personal.body)}) for leaf in whole.leaves if leaf.personal is not None]


def test_pseudonyms_hold_within_one_engagement_and_join_no_two(quick: Audited) -> None:
    quick.live()
    first, second = engaged(quick, 0), engaged(quick, 0)
    said = ask(quick, first).content
    assert ask(quick, first).content == said
    again = engaged(quick, 0, first)  # the same auditor, engaged once more for the same time
    listings = [parse_listing(said), listed(quick, second), listed(quick, again)]
    for names in (
        [row.consent for one in listings for row in one.rows],
        [row.person for one in listings for row in one.rows],
    ):
        assert len(set(names)) == len(names) == 3 * len(listings[0].rows)
    counts = [Counter(json.dumps([row.grantee, sorted(row.counts.items())]) for row in one.rows) for one in listings]
    assert counts[0] == counts[1] == counts[2], "what is left to join by: the page on protocols says so"


def test_a_listing_names_no_consent_no_person_no_leaf_and_no_time(quick: Audited) -> None:
    consent = quick.live()
    for _ in range(5):
        quick.service.consent()
    quick.settle()
    said = ask(quick, engaged(quick, 0)).content
    events = [event.personal for event in _events(quick)]
    names = {str(event[name]) for event in events for name in ("consent", "subject") if name in event}
    assert b64u(consent.consent_id) in names
    for name in (*names, *(b64u(bytes.fromhex(f"{at:08x}")) for at in (AT_S, unix_s(NOW)))):
        assert name.encode() not in said, name
    header, *rows = [json.loads(line) for line in said.splitlines()]
    assert header.keys() == {"format", "first", "end", "rows", "alone", "erased"}
    assert all(row.keys() == {"consent", "person", "grantee", "events"} for row in rows)
    pseudonyms = [row.consent for row in parse_listing(said).rows]
    assert len(pseudonyms) == 8, "so many that no other order is this one by chance"
    assert pseudonyms == sorted(pseudonyms)


def test_a_listing_is_about_all_of_a_time_that_is_over(quick: Audited) -> None:
    """Two listings of different stretches, or before and after an event, would tell by their difference whose it is."""
    quick.live()
    key = engaged(quick, 0)
    whole = listed(quick, key)
    assert (whole.first, whole.end) == (0, quick.size() - 2), "all but this engagement's own leaf and the access"
    for scope in (
        AuditScope(),
        AuditScope(0, unix_s(NOW)),
        AuditScope(0, unix_s(NOW) - SETTLED_S + 1),
        AuditScope(5, 6),
    ):
        with quick.service.database.transaction() as session:
            register_auditor(session, "Early", key.public_key, NOW + timedelta(days=9), scope, opens=0)
        assert ask(quick, key).status_code == 403, scope
    with quick.service.database.transaction() as session:
        over = AuditScope(0, unix_s(NOW) - SETTLED_S)
        register_auditor(session, "Late", key.public_key, NOW + timedelta(days=9), over, opens=0)
    assert ask(quick, key).status_code == 200


def test_no_more_is_opened_than_the_engagement_says(site: Audited) -> None:
    site.live()
    key = engaged(site, 2)
    names = [row.consent for row in listed(site, key).rows]
    answers = together(*[lambda name=name: ask(site, key, name) for name in names])
    assert sorted(answer.status_code for answer in answers) == [200, 200, 422]
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert refused.json()["type"].endswith("bad-audit-choice")
    opened = [row.consent for row in listed(site, key).rows if row.opened]
    assert len(opened) == 2
    assert ask(site, key, *opened).status_code == 200, "what is open costs nothing again"
    assert ask(site, key, bytes(32)).status_code == 422
    assert ask(site, key, names[0], names[0]).status_code == 403
    for number in (-1, 100_001):
        with pytest.raises(BadAuditor), site.service.database.transaction() as session:
            register_auditor(session, "Many", key.public_key, NOW, opens=number)


def test_one_consent_chosen_twice_at_once_is_opened_once(site: Audited) -> None:
    site.live()
    key = engaged(site, 1)
    name = listed(site, key).rows[0].consent
    answers = together(*[lambda: ask(site, key, name)] * 3)
    assert [answer.status_code for answer in answers] == [200] * 3
    with site.service.database.snapshot() as session:
        told = notices(session, site.service.owner.vault, after=-1, limit=256)
    assert sum(notice.public.get("shown") == "opened" for notice in told) == 1


def test_the_owner_of_a_chosen_consent_is_told_and_nobody_else(quick: Audited) -> None:
    quick.live()
    stranger = quick.stranger()
    key = engaged(quick, 1)
    row = busiest(listed(quick, key))
    listed(quick, key, row.consent)
    with quick.service.database.snapshot() as session:
        own = notices(session, quick.service.owner.vault, after=-1, limit=256)
        other = notices(session, stranger.vault, after=-1, limit=256)
    (said,) = [notice for notice in own if notice.public.get("shown") == "opened"]
    assert said.sentence.startswith("Acme Groceries: an auditor chose your consent"), said.sentence
    assert {notice.public.get("shown") for notice in other} <= {None, "listing"}
    assert sum("under names that mean something to this auditor only" in notice.sentence for notice in own) == 2


def test_floods_and_erasures_are_counted_too(quick: Audited) -> None:
    consent = quick.live()
    denied(quick, consent, ALONE + 3)
    publish(quick)
    key = engaged(quick)
    listing = listed(quick, key)
    row = busiest(listing)
    assert row.counts[LeafKind.DENIAL] == 2 + ALONE + 3
    bundle = bundle_of(quick, key, listing)
    members = [parse_member(record) for record in bundle.records.values() if is_member(record)]
    assert len(members) > 0
    assert not any(member.personal for member in members), "nobody chose this consent yet"
    assert compared(quick, listing, bundle).failures == ()
    chosen = listed(quick, key, row.consent)
    assert compared(quick, chosen, bundle_of(quick, key, chosen)).failures == ()
    erase_all(quick)
    emptied = listed(quick, key)
    assert emptied.rows == ()
    assert emptied.erased[LeafKind.DENIAL] == row.counts[LeafKind.DENIAL]
    after = bundle_of(quick, key, emptied)
    assert compared(quick, emptied, after).failures == ()
    report = verify_bundle(after, quick.service.trust, Carried(tally=Tally(emptied)))
    # Whose events an engagement did not open, their tombstones do not tell it either.
    stones = [parse_tombstone(record) for record in after.records.values() if is_tombstone(record)]
    assert {(stone.subject, stone.subject_salt) for stone in stones} == {(b"", b"")}
    assert not any(map(is_subject_erasure, after.records.values()))
    assert (report.withheld[Step.ERASURE], report.erased) == (len(stones), {})
    assert any("erased meanwhile" in failure.detail for failure in compared(quick, chosen, after).failures)


def test_nothing_is_shown_before_it_is_in_the_signed_log(quick: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.live()
    key = engaged(quick, 9)
    names = [row.consent for row in listed(quick, key).rows]
    wait = quick.service.sequencer.wait
    for chosen, waits in (([], 1), (names[:1], 2)):
        left = [True] * (waits - 1)

        def stopped(pending_id: PendingId, timeout_s: float, left: list[bool] = left) -> int:
            if not left:
                raise LogBusy
            left.pop()
            return wait(pending_id, timeout_s)

        monkeypatch.setattr(quick.service.sequencer, "wait", stopped)
        assert ask(quick, key, *chosen).status_code == LogBusy.status
    monkeypatch.undo()
    assert ask(quick, key).status_code == 200


def test_a_request_for_a_listing_works_once_here_and_now(quick: Audited) -> None:
    quick.live()
    key = engaged(quick, 0)
    honest = ListingRequest(ISSUER, new_id() * 2, unix_s(NOW), ())
    url, client = "/v1/audit/listing", quick.service.client
    body = sign_listing_request(honest, key).encoded
    assert client.post(url, content=body).status_code == 200
    assert client.post(url, content=body).status_code == 403
    for forged in (
        {"origin": "https://other.example"},
        {"issued_at": unix_s(NOW) - 61},
        {"issued_at": unix_s(NOW) + 61},
    ):
        lie = replace(honest, nonce=new_id() * 2, **forged)
        assert client.post(url, content=sign_listing_request(lie, key).encoded).status_code == 403
    stranger = SigningKey(new_seed())
    assert client.post(url, content=sign_listing_request(honest, stranger).encoded).status_code == 403
    assert client.post(url, content=quick.request(0, 0, key)).status_code == 403, "a request for a bundle is none"
    assert quick.send(sign_listing_request(replace(honest, nonce=new_id() * 2), key).encoded).status_code == 403


def test_kinds_of_leaves_in_a_sampled_bundle_are_those_of_a_full_one(quick: Audited) -> None:
    quick.live()
    key = engaged(quick, 0)
    listing = listed(quick, key)
    some, full = bundle_of(quick, key, listing), quick.bundle(listing.first, listing.end - 1)
    *shown, own = some.leaves  # besides, the leaf of its listing
    assert kind_of(own) == LeafKind.AUDITOR_ACCESS
    assert [kind_of(leaf) for leaf in shown] == [kind_of(leaf) for leaf in full.leaves]
    assert [leaf.public for leaf in shown] == [leaf.public for leaf in full.leaves]
