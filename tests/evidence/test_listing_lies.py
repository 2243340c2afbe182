"""A service that lies in a listing, or opens less than it listed: the rows that an auditor chose bind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.audit_kit import Audited, failed, kind_of, leaf_of, without
from tests.evidence.test_tombstones import erase_all
from tests.listing_kit import bundle_of, busiest, compared, engaged, listed, row_of
from vault.encoding import b64u, parse_json
from vault.proof.bundle import Bundle, records_by_hash
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.listing import Listing, Row, listing_digest, listing_lines, parse_listing, verify_unchanged
from vault.proof.report import Step
from vault.proof.sampled import Tally
from vault.proof.verify import verify_bundle


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


def _other_row_changed(listing: Listing, row: Row) -> Listing:
    """Change a row that nobody chose: what it counts stays, so that no other step sees it."""
    other = next(known for known in listing.rows if known.consent != row.consent)
    lied = replace(other, grantee="B" * 22)
    return replace(listing, rows=tuple(lied if known is other else known for known in listing.rows))


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
    "another listing than was logged": ("No leaf commits to this listing", _other_row_changed),
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


def test_the_log_holds_which_listing_was_shown(quick: Audited) -> None:
    quick.live()
    key = engaged(quick)
    seen = listed(quick, key)
    chosen = listed(quick, key, busiest(seen).consent)
    assert listing_digest(seen) == listing_digest(chosen)
    bundle = bundle_of(quick, key, chosen)
    said = [parse_json(leaf.public.body) for leaf in bundle.leaves if kind_of(leaf) == LeafKind.AUDITOR_ACCESS]
    shown = [access for access in said if access.get("shown") == "listing"]
    assert [access["listing"] for access in shown] == [b64u(listing_digest(seen))] * 2
    unlogged = without(bundle, *(leaf for leaf in bundle.leaves if b'"listing":' in leaf.public.body))
    (failure,) = compared(quick, chosen, unlogged).failures
    assert "No leaf commits to this listing" in failure.detail
    other = engaged(quick)
    theirs = listed(quick, other)
    listed(quick, key)  # an auditor of the same time is not shown others' listings
    later = [leaf for leaf in bundle_of(quick, other, theirs).leaves if leaf.index >= theirs.end]
    assert [kind_of(leaf) for leaf in later] == [LeafKind.AUDITOR_ACCESS]


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
