"""What was erased is missing from a bundle with a tombstone only; every other proof stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import Session

from tests.audit_kit import OPENED, Audited, bodies, failed, kind_of, leaf_of, verify, without
from tests.leaves import leaves
from tests.vault_kit import MONTH, PURCHASE
from vault.answers import records
from vault.consent import changes, consents
from vault.encoding import JsonObject, b64u
from vault.erasure.erase import ErasureRequest, erase
from vault.proof import tombstone
from vault.proof.bundle import Bundle, dump_bundle, records_by_hash
from vault.proof.event import Event
from vault.proof.leaf import LeafKind, make_entry
from vault.proof.merkle import leaf_hash
from vault.proof.ordered import author_of
from vault.proof.tombstone import is_tombstone
from vault.proof.verify import Step, verify_bundle
from vault.seal.erasure import Author, Scope
from vault.seal.ids import new_id
from vault.tlog import log, tombstones


@contextmanager
def erased_on_order(site: Audited, scope: str = "person", author: str = "owner", **said: Any) -> Iterator[Session]:
    """Erase in a transaction, and let its tombstones follow from an erasure by its author."""
    public: JsonObject = {"scope": scope, "author": author, "period": "2026-11", **said}
    with site.service.database.transaction() as session:
        order = log.append(session, LeafKind.ERASURE, public, {})
        signed = site.service.as_each_subject() if author == "owner" else {}
        with tombstones.following(session, order.id, author_of(public), signed):
            yield session


def erase_all(site: Audited) -> None:
    """Forget everything about the owner that auditors are shown, as erasing a person does."""
    vault = site.service.owner.vault
    with erased_on_order(site) as session:
        records.forget(session, [consent.consent_id for consent in consents.list_for(session, vault)])
        changes.forget(session, vault)
        log.forget_about(session, vault)


def test_erased_openings_have_tombstones_and_every_other_proof_stays(site: Audited) -> None:
    consent = site.live()
    before = site.bundle()
    erase_all(site)
    found = site.bundle(0, before.complete_to - 1)
    erased = {leaf.index for leaf in before.leaves if leaf.personal is not None} - {_unlinked(found)}
    assert erased == {leaf.index for leaf in found.leaves if kind_of(leaf) in OPENED and leaf.personal is None}
    report = verify(site, found)
    assert report.failures == ()
    assert report.checked[Step.ERASURE] == len(erased) > 5
    data = dump_bundle(found)
    assert b64u(consent.consent_id).encode() in b"".join(bodies(before))
    assert not any(text.encode() in data for text in (b64u(consent.consent_id), b64u(consent.subject)))
    # The next bundle needs no group of its own, and a later erasure makes another one.
    assert verify(site, site.bundle(0, before.complete_to - 1)).failures == ()
    with site.service.database.snapshot() as session:
        groups = [public for kind, public, _ in leaves(session) if kind == "tombstones"]
    assert len(groups) == 1
    assert groups[0]["count"] >= len(erased)


def test_a_month_that_was_erased_before_everything_is_no_erasure_of_the_person(quick: Audited) -> None:
    """Its own record goes with the person, and so has a tombstone like any other event."""
    quick.live()
    service = quick.service
    for named in ((service.owner.compartment(PURCHASE, MONTH).id,), None):
        scope = Scope(service.owner.vault, named)
        signed = service.as_each_subject() if scope.whole else {}
        asked = ErasureRequest(new_id(), scope, Author.OWNER, "", bytes(32), signed=signed)
        with service.database.transaction() as session:
            erase(session, service.shortkeys, asked, service=service.service, now=service.clock.at)
    report = verify(quick, quick.bundle())
    assert report.failures == ()
    assert report.checked[Step.ERASURE] > 5
    with service.database.snapshot() as session:
        (group,) = [
            public for kind, public, _ in leaves(session) if kind == "tombstones" and public["author"] == "owner"
        ]
        erasures = [personal for kind, _, personal in leaves(session) if kind == "erasure"]
    assert len(group["orders"]) == 1
    assert [personal is None for personal in erasures] == [True, False]


def test_what_is_erased_while_an_audit_is_prepared_does_not_look_concealed(site: Audited) -> None:
    site.live()
    last = site.size() - 1
    state = site.service.client.app.state  # type: ignore[attr-defined]  # FastAPI
    desk = state.audit_desk
    erasures = iter([lambda: _forget(site, LeafKind.DENIAL), lambda: erase_all(site)])

    class ErasingMeanwhile:
        def wait(self, *arguments: Any) -> int:
            next(erasures, lambda: None)()
            return int(desk.sequencer.wait(*arguments))

    state.audit_desk = replace(desk, sequencer=ErasingMeanwhile())
    report = verify(site, site.bundle(0, last))
    assert report.failures == ()
    assert report.checked[Step.ERASURE] > 5
    assert list(erasures) == []


def _forget(site: Audited, kind: LeafKind, scope: str = "person") -> None:
    how = erased_on_order(site, scope) if scope else site.service.database.transaction()
    with how as session:
        ours = log.find(session, kind=kind, about=site.service.owner.vault)
        log.delete_personal_openings(session, [leaf.pending_id for leaf in ours])


def _unlinked(bundle: Bundle) -> int:
    """Return the denial of a question under a consent that does not exist: it concerns nobody."""
    return next(leaf.index for leaf in bundle.leaves if kind_of(leaf) == "denial" and leaf.personal is not None)


def _other_leaf(record: bytes) -> bytes:
    return re.sub(rb'"leaf":(\d+)', lambda found: b'"leaf":%d' % (int(found[1]) + 1), record)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: b"",
        _other_leaf,
        lambda record: re.sub(rb'"position":\d+', b'"position":0', record),
        lambda record: re.sub(rb'"size":\d+', b'"size":99', record),
        lambda record: re.sub(rb'"salt":"[^"]{43}', b'"salt":"' + b64u(bytes(32)).encode(), record),
        lambda record: re.sub(rb'"group":\d+', b'"group":0', record),
        lambda record: record.replace(b'"path":[', b'"path":["",'),
        lambda record: record.replace(b'"salt"', b'"salts"'),
        lambda record: record[:-1],
    ],
    ids=["missing", "leaf", "position", "size", "salt", "group", "path", "field", "cut"],
)
def test_a_tombstone_that_does_not_hold_accounts_for_nothing(quick: Audited, change: Callable[[bytes], bytes]) -> None:
    quick.live()
    erase_all(quick)
    found = quick.bundle()
    assert failed(verify(quick, found)) == set()
    forged = [change(record) if is_tombstone(record) else record for record in found.records.values()]
    failures = failed(verify(quick, replace(found, records=records_by_hash(forged))))
    assert Step.ERASURE in {step for step, _ in failures} <= {Step.ERASURE, Step.RECORDS}
    assert len(failures) >= len([record for record in found.records.values() if is_tombstone(record)]) - 1


def test_each_tombstone_is_read_once_however_much_was_erased(quick: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.live()
    erase_all(quick)
    found = quick.bundle()
    read: list[bytes] = []
    parse = tombstone.parse_tombstone
    monkeypatch.setattr(tombstone, "parse_tombstone", lambda record: read.append(record) or parse(record))
    assert verify_bundle(found, quick.service.trust).failures == ()
    assert sorted(read) == sorted(record for record in found.records.values() if is_tombstone(record))


def test_a_group_that_is_not_in_the_log_accounts_for_nothing(quick: Audited) -> None:
    quick.live()
    last = quick.size() - 1
    erase_all(quick)
    found = quick.bundle(0, last)
    group = leaf_of(found, LeafKind.TOMBSTONES)
    assert group.index > last
    failures = failed(verify(quick, without(found, group)))
    assert Step.ERASURE in {step for step, _ in failures} <= {Step.ERASURE, Step.RECORDS}


@pytest.mark.parametrize(
    ("scope", "said"), [("", "nobody ordered what it accounts for"), ("compartments", "erased no person")]
)
def test_a_service_that_buries_what_nobody_ordered_to_erase_is_named(quick: Audited, scope: str, said: str) -> None:
    quick.live()
    _forget(quick, LeafKind.DENIAL, scope)
    found = quick.bundle()
    buried = [leaf.index for leaf in found.leaves if kind_of(leaf) == LeafKind.DENIAL and leaf.personal is None]
    report = verify(quick, found)
    assert len(buried) > 1
    assert {(Step.ERASURE, index) for index in buried} <= failed(report)
    assert {failure.step for failure in report.failures} <= {Step.ERASURE, Step.ORDER}
    assert all(said in failure.detail for failure in report.failures if failure.step is Step.ERASURE)


def test_the_erasure_that_a_group_follows_from_must_be_shown(quick: Audited) -> None:
    quick.live()
    last = quick.size() - 1
    erase_all(quick)
    found = quick.bundle(0, last)
    order, group = leaf_of(found, LeafKind.ERASURE), leaf_of(found, LeafKind.TOMBSTONES)
    assert last < order.index < group.index
    failures = failed(verify(quick, without(found, order)))
    assert len({leaf for step, leaf in failures if step is Step.ERASURE}) > 5


PERSON: JsonObject = {"scope": "person", "author": "owner"}
ERASED, OTHER = (make_entry({"kind": "erasure", **PERSON}, {})[0] for _ in range(2))
NAMED = b64u(leaf_hash(ERASED))


@pytest.mark.parametrize(
    ("erasures", "groups", "unordered"),
    [
        ({3: PERSON}, {5: [NAMED]}, set()),
        ({7: PERSON}, {5: [NAMED]}, {5}),
        ({3: PERSON}, {5: [NAMED], 8: [NAMED]}, {5, 8}),
        ({3: PERSON}, {5: [NAMED, b64u(leaf_hash(OTHER))]}, {5}),
        ({3: PERSON}, {5: []}, {5}),
        ({3: PERSON}, {5: NAMED}, {5}),
        ({3: PERSON}, {5: [[[NAMED]], 1]}, {5}),
    ],
    ids=["honest", "ordered later", "named twice", "one of two", "none", "no list", "nonsense"],
)
def test_each_erasure_is_followed_by_one_group(
    erasures: dict[int, JsonObject], groups: dict[int, Any], unordered: set[int]
) -> None:
    entries = dict.fromkeys(erasures, ERASED)
    events = {
        LeafKind.ERASURE: [Event(at, LeafKind.ERASURE, public, {}, None) for at, public in erasures.items()],
        LeafKind.TOMBSTONES: [
            Event(at, LeafKind.TOMBSTONES, {"orders": to, "author": "owner"}, {}, None) for at, to in groups.items()
        ],
    }
    shown: Any = SimpleNamespace(entries=entries, events=events)
    assert tombstone.why_unordered(shown).keys() == unordered


def test_nothing_is_erased_without_a_tombstone(quick: Audited) -> None:
    quick.live()
    erase_all(quick)
    with quick.service.database.snapshot() as session:
        query = "SELECT count(*) FROM log_opening LEFT JOIN log_tombstone USING (entry_id)"
        bare = session.connection().exec_driver_sql(f"{query} WHERE personal_salt IS NULL AND salt IS NULL")
        assert bare.scalar_one() == 0
