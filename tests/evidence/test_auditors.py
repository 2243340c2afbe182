"""Whom the service shows a bundle, of what, how often, and what it logs before it does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.audit_kit import Audited
from tests.consent_kit import NOW
from tests.leaves import leaves
from vault.evidence.auditors import AuditScope, BadAuditor, register_auditor
from vault.seal.signing import SigningKey, new_seed
from vault.tlog import log
from vault.tlog.errors import LogBusy
from vault.tlog.models import log_entry


def test_ended_and_never_registered_auditors_are_refused(site: Audited) -> None:
    stranger, ended = SigningKey(new_seed()), SigningKey(new_seed())
    site.register(ended, days=-1)
    site.settle()
    for signer in (stranger, ended):
        assert site.send(site.request(signer=signer)).status_code == 403
    site.register(ended, days=1)
    assert site.send(site.request(signer=ended)).status_code == 200
    site.register(ended, days=0)
    assert site.send(site.request(signer=ended)).status_code == 403


def test_a_request_works_once_here_and_now(site: Audited) -> None:
    site.settle()
    request = site.request()
    assert site.send(request).status_code == 200
    assert site.send(request).status_code == 403
    at = site.service.clock.at
    for forged in (
        {"origin": "https://other.example"},
        {"issued_at": int(at.timestamp()) - 61},
        {"issued_at": int(at.timestamp()) + 61},
    ):
        assert site.send(site.request(**forged)).status_code == 403
    for seconds in (-60, 60):
        assert site.send(site.request(issued_at=int(at.timestamp()) + seconds)).status_code == 200
    early = site.request(issued_at=int(at.timestamp()) + 60)
    assert site.send(early).status_code == 200
    site.service.clock.at = at + timedelta(seconds=120)  # the last moment at which it is fresh
    assert site.send(early).status_code == 403


def test_a_forged_signature_is_refused_and_costs_the_request_nothing(quick: Audited) -> None:
    quick.settle()
    request = quick.request()
    for position in (len(request) - 1, len(request) - 64, len(request) // 2):
        flipped = bytearray(request)
        flipped[position] ^= 1
        assert quick.send(bytes(flipped)).status_code == 403
    assert quick.send(request[:-1]).status_code == 400
    assert quick.send(b"").status_code == 400
    assert quick.send(request).status_code == 200


def test_a_range_that_the_log_does_not_have_is_refused(quick: Audited) -> None:
    size = quick.settle()
    for first, last, status in ((0, size, 422), (size, size, 422), (2**40, 2**40, 422), (3, 2, 403)):
        assert quick.send(quick.request(first, last)).status_code == status
    assert quick.send(quick.request(size - 1, size - 1)).status_code == 200


def test_a_range_wider_than_a_bundle_is_refused(quick: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    size = quick.settle()
    monkeypatch.setattr("vault.evidence.auditors.MAX_LEAVES", size - 1)
    assert quick.send(quick.request(0, size - 1)).status_code == 422
    assert quick.send(quick.request(1, size - 1)).status_code == 200


def test_every_access_is_logged_before_anything_is_shown(site: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    size = site.settle()
    bundle = site.bundle(0, size - 1)
    with site.service.database.snapshot() as session:
        accesses = [public for kind, public, _ in leaves(session) if kind == "auditor-access" and "first" in public]
    (access,) = accesses
    assert (access["first"], access["last"]) == (0, size - 1)
    assert int(bundle.checkpoint.splitlines()[1]) > size, "the checkpoint sent covers the access itself"
    site.send(site.request(0, size))
    with site.service.database.snapshot() as session:
        assert sum("first" in public for _, public, _ in leaves(session)) == 2

    def late(*_: object) -> int:
        raise LogBusy

    monkeypatch.setattr(site.service.sequencer, "wait", late)
    assert site.send(site.request(0, size)).status_code == LogBusy.status


def test_an_engagement_shows_the_time_that_it_is_about_and_no_more(site: Audited) -> None:
    site.live()
    last = site.size() - 1
    early, late = 1_700_000_000, 1_710_000_000
    with site.service.database.transaction() as session:
        for leaf in log.find(session, limit=1_000):
            at_s = early if leaf.index < 5 else late
            session.connection().execute(
                log_entry.update().where(log_entry.c.id == leaf.pending_id).values(recorded_s=at_s)
            )
    key = SigningKey(new_seed())
    with site.service.database.transaction() as session:
        register_auditor(session, "Scoped", key.public_key, NOW + timedelta(days=1), AuditScope(early + 1, late + 1))
    for first, end, status in ((5, last, 200), (4, last, 403), (0, 4, 403), (5, last + 1, 403)):
        response = site.send(site.request(first, end, key))
        assert response.status_code == status, response.text
    for scope in (AuditScope(5, 5), AuditScope(-1, 5), AuditScope(9, 8), AuditScope(0, 2**33)):
        with pytest.raises(BadAuditor), site.service.database.transaction() as session:
            register_auditor(session, "Scoped", key.public_key, NOW, scope)
