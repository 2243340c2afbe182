"""An auditor that chooses whose decisions it sees: what its listing tells, to what it binds the service, and what it does not join."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from tests.answer_kit import ISSUER
from tests.audit_kit import Audited, failed, kind_of, leaf_of, without
from tests.consent_kit import NOW
from tests.evidence.test_floods import denied, publish
from tests.evidence.test_tombstones import erase_all
from tests.waiting import together
from vault.answers.floods import ALONE
from vault.clock import unix_s
from vault.encoding import b64u, parse_json
from vault.evidence.auditors import SETTLED_S, BadAuditor, Scope, register_auditor
from vault.notices.feed import notices
from vault.proof.bundle import Bundle, dump_bundle, parse_bundle, records_by_hash
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.listing import COUNTED, Listing, Row, listing_lines, parse_listing, verify_unchanged
from vault.proof.member import is_member, parse_member
from vault.proof.report import Report, Step
from vault.proof.sampled import Tally, verify_listing
from vault.proof.verify import verify_bundle
from vault.seal.audit import ListingRequest, sign_listing_request
from vault.seal.ids import new_id
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.models import log_entry

AT_S = unix_s(NOW - timedelta(days=1))
"""When everything logged so far was recorded, as the tests set it."""


def engaged(site: Audited, opens: int | None = 1, key: SigningKey | None = None) -> SigningKey:
    """Let all that was logged so far be the time of a new engagement, which is over."""
    size, key = site.settle(), key or SigningKey(new_seed())
    with site.service.database.transaction() as session:
        recorded = log_entry.update().where(log_entry.c.leaf_index < size, log_entry.c.recorded_s > AT_S)
        session.connection().execute(recorded.values(recorded_s=AT_S))
        register_auditor(
            session, "Chooser", key.public_key, NOW + timedelta(days=9), Scope(AT_S, AT_S + 1), opens=opens
        )
    return key


def ask(site: Audited, key: SigningKey, *chosen: bytes) -> httpx.Response:
    request = ListingRequest(ISSUER, new_id() * 2, unix_s(NOW), chosen)
    return site.service.client.post("/v1/audit/listing", content=sign_listing_request(request, key).encoded)


def listed(site: Audited, key: SigningKey, *chosen: bytes) -> Listing:
    response = ask(site, key, *chosen)
    assert response.status_code == 200, response.text
    return parse_listing(response.content)


def bundle_of(site: Audited, key: SigningKey, listing: Listing) -> Bundle:
    response = site.send(site.request(listing.first, listing.end - 1, key))
    assert response.status_code == 200, response.text
    return parse_bundle(response.content)


def compared(site: Audited, listing: Listing, *parts: Bundle) -> Report:
    """Verify the parts of a sampled audit, and then its listing, under the pinned keys."""
    carried = Carried(tally=Tally(listing))
    for part in parts:
        report = verify_bundle(parse_bundle(dump_bundle(part)), site.service.trust, carried)
        assert report.failures == ()
    assert carried.tally is not None
    return verify_listing(carried.tally, (carried.complete_from, carried.complete_to))


def busiest(listing: Listing) -> Row:
    """Return the row of the consent that `Audited.live` gave a company."""
    return max(listing.rows, key=lambda row: sum(row.counts.values()))


def row_of(listing: Listing, row: Row) -> Row:
    return next(known for known in listing.rows if known.consent == row.consent)


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
    assert (report.failures, report.checked[Step.LISTING]) == ((), 1 + len(COUNTED) + 1)


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
    said = ask(quick, engaged(quick, 0)).content
    events = [event.personal for event in _events(quick)]
    names = {str(event[name]) for event in events for name in ("consent", "subject") if name in event}
    assert b64u(consent.consent_id) in names
    for name in (*names, *(b64u(bytes.fromhex(f"{at:08x}")) for at in (AT_S, unix_s(NOW)))):
        assert name.encode() not in said, name
    header, *rows = [json.loads(line) for line in said.splitlines()]
    assert header.keys() == {"format", "first", "end", "rows", "alone", "erased"}
    assert all(row.keys() == {"consent", "person", "grantee", "events"} for row in rows)
    assert [row.consent for row in parse_listing(said).rows] == sorted(row.consent for row in parse_listing(said).rows)


def test_a_listing_is_about_all_of_a_time_that_is_over(quick: Audited) -> None:
    """Two listings of different stretches, or before and after an event, would tell by their difference whose it is."""
    quick.live()
    key = engaged(quick, 0)
    whole = listed(quick, key)
    assert (whole.first, whole.end) == (0, quick.size() - 2), "all but this engagement's own leaf and the access"
    for scope in (Scope(), Scope(0, unix_s(NOW)), Scope(0, unix_s(NOW) - SETTLED_S + 1), Scope(5, 6)):
        with quick.service.database.transaction() as session:
            register_auditor(session, "Early", key.public_key, NOW + timedelta(days=9), scope, opens=0)
        assert ask(quick, key).status_code == 403, scope
    with quick.service.database.transaction() as session:
        over = Scope(0, unix_s(NOW) - SETTLED_S)
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


def test_a_bundle_that_opens_some_consents_proves_nothing_without_its_listing(quick: Audited) -> None:
    quick.live()
    key = engaged(quick)
    listing = listed(quick, key)
    chosen = listed(quick, key, busiest(listing).consent)
    bundle = bundle_of(quick, key, chosen)
    report = verify_bundle(bundle, quick.service.trust)
    assert failed(report) == {(Step.LISTING, None)}
    assert report.withheld[Step.OPENINGS] > 0
    assert Step.ERASURE in {
        step for step, _ in failed(verify_bundle(replace(bundle, withheld=frozenset()), quick.service.trust))
    }


def test_parts_of_a_sampled_audit_are_counted_together(quick: Audited) -> None:
    quick.live()
    key = engaged(quick)
    chosen = listed(quick, key, busiest(listed(quick, key)).consent)
    cut = chosen.end // 2
    parts = [bundle_of(quick, key, replace(chosen, end=cut)), bundle_of(quick, key, replace(chosen, first=cut))]
    assert compared(quick, chosen, *parts).failures == ()
    (short,) = compared(quick, chosen, parts[0]).failures[:1]
    assert "are shown: fetch the whole time" in short.detail


def _less(counts: dict[LeafKind, int], kind: LeafKind, by: int = 1) -> dict[LeafKind, int]:
    return {**counts, kind: counts.get(kind, 0) - by}


def _moved(listing: Listing, row: Row) -> Listing:
    """Count a withdrawal of the chosen row under another consent."""
    other = next(known for known in listing.rows if known.consent != row.consent)
    changed = {
        row.consent: replace(row, counts=_less({**row.counts}, LeafKind.CONSENT)),
        other.consent: replace(other, counts=_less({**other.counts}, LeafKind.CONSENT, -1)),
    }
    return replace(listing, rows=tuple(changed.get(known.consent, known) for known in listing.rows))


def _left_out(listing: Listing, row: Row) -> Listing:
    gone = next(known for known in listing.rows if known.consent != row.consent)
    return replace(listing, rows=tuple(known for known in listing.rows if known is not gone))


def _changed(**changes: object) -> Callable[[Listing, Row], Listing]:
    def change(listing: Listing, row: Row) -> Listing:
        lied = replace(row, **changes)  # type: ignore[arg-type]
        return replace(listing, rows=tuple(lied if known.consent == row.consent else known for known in listing.rows))

    return change


def _exchanged(listing: Listing, row: Row) -> Listing:
    """Open the chosen row as another consent than it was listed for."""
    assert row.opened is not None
    other = replace(row.opened, consent_salt=bytes(32))
    return _changed(opened=other)(listing, row)


def _for_another_person(listing: Listing, row: Row) -> Listing:
    assert row.opened is not None
    return _changed(opened=replace(row.opened, subject_salt=bytes(32)))(listing, row)


LIES: dict[str, tuple[str, Callable[[Listing, Row], Listing]]] = {
    "a consent left out": ("The listing counts", _left_out),
    "an event counted under another consent": ("counts other events", _moved),
    "a denial counted as nobody's": (
        "The listing counts",
        lambda listing, row: replace(listing, alone=listing.alone + 1),
    ),
    "an event called erased": ("The listing counts", lambda listing, _: replace(listing, erased={LeafKind.ANSWER: 1})),
    "another consent behind the row": ("was listed for another consent", _exchanged),
    "another person behind the row": ("was listed for another consent or person", _for_another_person),
    "another grantee": ("names another grantee", _changed(grantee="B" * 22)),
    "chosen, and not opened": ("no row of the listing is opened as it", _changed(opened=None)),
    "another time": ("fetch the whole time", lambda listing, _: replace(listing, end=listing.end + 1)),
}


def test_a_service_that_lies_in_its_listing_is_named(quick: Audited) -> None:
    quick.live()
    key = engaged(quick)
    row = busiest(listed(quick, key))
    honest = listed(quick, key, row.consent)
    bundle = bundle_of(quick, key, honest)
    assert compared(quick, honest, bundle).failures == ()
    for name, (sentence, lie) in LIES.items():
        said = [failure.detail for failure in compared(quick, lie(honest, row_of(honest, row)), bundle).failures]
        assert any(sentence in detail for detail in said), (name, said)


def test_a_listing_cannot_change_once_it_was_chosen_from(quick: Audited) -> None:
    quick.live()
    key = engaged(quick)
    seen = listed(quick, key)
    row = busiest(seen)
    honest = listed(quick, key, row.consent)
    verify_unchanged(seen, honest)
    verify_unchanged(honest, honest)
    for name, (_, lie) in LIES.items():
        if name not in {"another consent behind the row", "another person behind the row", "chosen, and not opened"}:
            with pytest.raises(InvalidProof):
                verify_unchanged(seen, lie(honest, row_of(honest, row)))
    added = replace(row, consent=bytes(32), counts={})
    for changed in (seen, replace(honest, rows=(added, *honest.rows)), replace(honest, first=1)):
        with pytest.raises(InvalidProof):
            verify_unchanged(honest, changed)
    erase_all(quick)
    verify_unchanged(honest, listed(quick, key))
    with pytest.raises(InvalidProof, match="not only for what was erased"):
        verify_unchanged(honest, replace(listed(quick, key), erased={}))


def test_a_withdrawal_that_is_kept_closed_is_named(quick: Audited) -> None:
    """The service calls the last events of a chosen consent somebody else's."""
    consent = quick.live()
    key = engaged(quick)
    chosen = listed(quick, key, busiest(listed(quick, key)).consent)
    bundle = bundle_of(quick, key, chosen)
    ours = b64u(consent.consent_id)
    last = [
        leaf_of(bundle, LeafKind.CONSENT, consent=ours, version=3),
        leaf_of(bundle, LeafKind.DENIAL, -1, consent=ours),
    ]
    shut = replace(
        bundle, leaves=tuple(replace(leaf, personal=None) if leaf in last else leaf for leaf in bundle.leaves)
    )
    named = {b64u(digest) for leaf in last if leaf.personal for digest in _digests(leaf.personal.body, bundle)}
    shut = replace(shut, records=records_by_hash(r for d, r in bundle.records.items() if b64u(d) not in named))
    (failure,) = compared(quick, chosen, shut).failures
    assert "counts other events than the log opens" in failure.detail
    middle = leaf_of(bundle, LeafKind.CONSENT, consent=ours, version=2)
    report = verify_bundle(
        replace(
            bundle, leaves=tuple(replace(leaf, personal=None) if leaf == middle else leaf for leaf in bundle.leaves)
        ),
        quick.service.trust,
        Carried(tally=Tally(chosen)),
    )
    assert Step.ORDER in {step for step, _ in failed(report)}
    gone = verify_bundle(without(bundle, middle), quick.service.trust, Carried(tally=Tally(chosen)))
    assert (Step.OPENINGS, middle.index) in failed(gone)


def _digests(body: bytes, bundle: Bundle) -> list[bytes]:
    said = parse_json(body).values()
    return [digest for digest in bundle.records if b64u(digest) in said]


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
    assert any("erased meanwhile" in failure.detail for failure in compared(quick, chosen, after).failures)


def test_a_listing_that_is_damaged_is_refused_by_its_line(quick: Audited) -> None:
    quick.live()
    key = engaged(quick)
    honest = listed(quick, key, busiest(listed(quick, key)).consent)
    data = b"".join(listing_lines(honest))
    assert parse_listing(data) == honest
    header, *rows = data.splitlines(keepends=True)
    for damaged, line in (
        (b"", "cut short"), (data[:-1], "cut short"), (b"".join([header, *rows[:-1]]), "announces"), (b"[" * 9999 + b"\n", 1),
        (b"".join([header, *reversed(rows)]), "must ascend"), (b"".join([header, rows[0], *rows[:-1]]), "must ascend"),
        (b"".join([header, b"{}\n", *rows[1:]]), 2), (b"".join([header.replace(b"/v1", b"/v2"), *rows]), 1),
        (data.replace(b'"answer":', b'"handover":'), "counted by their kind"), (data.replace(b'"alone":1', b'"alone":-1'), 1),
        (data.replace(b'"grantee":"owner"', b'"grantee":7'), "grantee is a text"), (b"\xff\n", 1),
    ):  # fmt: skip
        with pytest.raises(MalformedProof, match=f"Line {line} of" if isinstance(line, int) else line):
            parse_listing(damaged)


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
    assert [kind_of(leaf) for leaf in some.leaves] == [kind_of(leaf) for leaf in full.leaves]
    assert [leaf.public for leaf in some.leaves] == [leaf.public for leaf in full.leaves]
