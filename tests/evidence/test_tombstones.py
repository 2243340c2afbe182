"""What was erased is missing from a bundle with a tombstone only; every other proof stays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.audit_kit import OPENED, Audited, bodies, failed, kind_of, leaf_of, verify, without
from tests.leaves import leaves
from vault.answers import records
from vault.consent import changes, consents
from vault.encoding import b64u
from vault.proof import tombstone
from vault.proof.bundle import Bundle, dump_bundle, records_by_hash
from vault.proof.leaf import LeafKind
from vault.proof.tombstone import is_tombstone
from vault.proof.verify import Step
from vault.tlog import log


def erase_all(site: Audited) -> None:
    """Forget everything about the owner that auditors are shown, as erasing a person does."""
    vault = site.service.owner.vault
    with site.service.database.transaction() as session:
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


def _forget(site: Audited, kind: LeafKind) -> None:
    with site.service.database.transaction() as session:
        log.delete_personal_openings(session, [leaf.pending_id for leaf in log.find(session, kind=kind)])


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
    assert failed(verify(quick, found)) == set()
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


def test_nothing_is_erased_without_a_tombstone(quick: Audited) -> None:
    quick.live()
    erase_all(quick)
    with quick.service.database.snapshot() as session:
        query = "SELECT count(*) FROM log_opening LEFT JOIN log_tombstone USING (entry_id)"
        bare = session.connection().exec_driver_sql(f"{query} WHERE personal_salt IS NULL AND salt IS NULL")
        assert bare.scalar_one() == 0
