"""A consent is given by what the person signed, once, never wider than asked, and never comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.consent_kit import NOW, World
from tests.leaves import leaves
from tests.vault_kit import begin
from vault.consent import changes, consents, handovers
from vault.consent.errors import ConsentConflict
from vault.encoding import b64u
from vault.parties import companies
from vault.parties.companies import CompanyStatus
from vault.proof.bound import verify_bound_event
from vault.schema.consent import ConsentEvent
from vault.schema.terms import BadConsent, ConsentKind
from vault.seal.derive import pairwise_key
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, sha256
from vault.seal.signing import SigningKey, new_seed
from vault.store import shortkeys as short_key_store


@pytest.mark.parametrize("kind", ConsentKind)
def test_a_given_consent_is_in_force_with_its_keys_and_leaves(world: World, kind: ConsentKind) -> None:
    version = world.give(kind)
    found = world.find(version.consent_id)
    assert (found.current, found.live, found.vault_id) == (version, True, world.owner.vault)
    assert found.quota_left(NOW) == version.terms.quota_per_month
    with world.database.snapshot() as session:
        for key_kind in handovers.REQUIRED[kind]:
            handovers.read(session, world.shortkeys, found.consent_id, 1, key_kind)
        logged = {name: (public, personal) for name, public, personal in leaves(session)}
    public, personal = logged["consent"]
    assert personal is not None
    verify_bound_event(public, personal)
    del public["bound"], personal["subject_salt"]
    assert public == {
        "kind": "consent",
        "consent_kind": kind,
        "event_state": "dpv:ConsentGiven",
        "period": "2026-11",
    }
    assert personal == {
        "consent": b64u(version.consent_id),
        "subject": b64u(version.subject),
        "version": 1,
        "consent_seq": 1,
        "prev": "",
        "grantee": version.terms.grantee,
        "event": "given",
        "at": version.event_time,
        "record": b64u(found.sha256),
    }
    _, handed = logged["handover"]
    assert handed is not None
    assert handed["certificate"] == b64u(world.certificate(version).digest)


def test_a_companys_leaf_does_not_name_the_vault(world: World) -> None:
    version = world.give()
    with world.database.snapshot() as session:
        personal = next(personal for kind, _, personal in leaves(session) if kind == "consent")
    assert b64u(world.owner.vault) not in str(personal)
    assert version.subject != world.first(ConsentKind.COHORT)[0].subject


def test_a_consent_is_given_once(world: World) -> None:
    version, request = world.first()
    submission = world.submission(version, request)
    world.give_this(submission)
    with pytest.raises(ConsentConflict):
        world.give_this(submission)


def test_a_withdrawn_consent_is_not_revived_by_replaying_its_versions(world: World) -> None:
    version, request = world.first()
    submission = world.submission(version, request)
    world.give_this(submission)
    narrowed = world.next(version, ConsentEvent.NARROWED)
    world.amend(narrowed)
    world.withdraw(narrowed)
    for replay in (lambda: world.give_this(submission), lambda: world.amend(narrowed)):
        with pytest.raises((ConsentConflict, BadConsent)):
            replay()
    assert not world.find(version.consent_id).live


def test_a_forgotten_consent_is_not_given_again(world: World) -> None:
    version, request = world.first()
    submission = world.submission(version, request)
    world.give_this(submission)
    with world.database.transaction() as session:
        changes.forget(session, world.owner.vault)
    with pytest.raises(ConsentConflict):
        world.give_this(submission)
    with world.database.snapshot() as session:
        assert consents.find(session, ConsentId(version.consent_id)) is None
        personal = [personal for kind, _, personal in leaves(session) if kind in {"consent", "handover"}]
    assert personal == [None, None]
    assert short_key_store.delete_scheduled(world.database, world.shortkeys) == 1


def test_an_old_signature_gives_nothing(world: World) -> None:
    version, request = world.first()
    with pytest.raises(BadConsent, match="within a day"):
        world.give_this(world.submission(version, request), now=NOW + timedelta(days=2))
    early = replace(version, event_time=version.event_time + 301)
    with pytest.raises(BadConsent, match="within a day"):
        world.give_this(world.submission(early, request))


def test_another_vaults_key_gives_nothing(world: World) -> None:
    stranger = begin(world.database, world.shortkeys)[0]
    grantee = world.company.company_id
    key = pairwise_key(stranger.seeds.pairwise, grantee)
    version, request = world.first()
    theirs = replace(version, principal_key=key.public_key)
    submission = world.submission(theirs, request, envelope=world.signed(theirs, key))
    for certificate in (world.certificate(theirs, stranger), world.certificate(version), None):
        with pytest.raises((SealError, BadConsent)):
            world.give_this(replace(submission, certificate=certificate))


def test_a_certificate_for_another_grantee_is_refused(world: World) -> None:
    version, request = world.first()
    other = world.certificate(replace(version, terms=replace(version.terms, grantee="B" * 22)))
    with pytest.raises(SealError, match="another vault, pairwise key or grantee"):
        world.give_this(world.submission(version, request, certificate=other))


def test_a_forged_signature_is_refused(world: World) -> None:
    version, request = world.first()
    stranger = SigningKey(new_seed())
    with pytest.raises(SealError):
        world.give_this(world.submission(version, request, envelope=world.signed(version, stranger)))
    signed = world.signed(version)
    payload = bytearray(signed.payload)
    payload[payload.index(b'"n":5') + 4] = ord("9")
    with pytest.raises(SealError):
        world.give_this(world.submission(version, request, envelope=replace(signed, payload=bytes(payload))))


def test_wider_than_requested_is_refused(world: World) -> None:
    version, request = world.first()
    wider = replace(version, terms=replace(version.terms, quota_per_month=6))
    with pytest.raises(BadConsent, match="more than was asked"):
        world.give_this(world.submission(wider, request))
    _, other = world.first()
    with pytest.raises(BadConsent, match="another request"):
        world.give_this(world.submission(version, other))
    with pytest.raises(BadConsent):
        world.give_this(world.submission(version, ""))


def test_a_request_must_be_the_companys_own(world: World) -> None:
    version, _ = world.first()
    world.company.question = type(world.company)().question
    forged = world.request(version.terms)
    version = replace(version, request_sha256=sha256(forged.encode()))
    with pytest.raises(BadConsent, match="cannot be used"):
        world.give_this(world.submission(version, forged))


def test_a_company_that_is_unknown_or_suspended_is_given_nothing(world: World) -> None:
    version, request = world.first(grantee="B" * 22)
    with pytest.raises(BadConsent, match="not a company"):
        world.give_this(world.submission(version, request))
    version, request = world.first()
    with world.database.transaction() as session:
        companies.set_status(session, companies.CompanyId(world.company.company_id), CompanyStatus.SUSPENDED, now=NOW)
    with pytest.raises(BadConsent, match="not a company"):
        world.give_this(world.submission(version, request))


def test_nobody_asks_for_a_self_or_cohort_consent(world: World) -> None:
    for kind in (ConsentKind.SELF, ConsentKind.COHORT):
        version, _ = world.first(kind)
        with pytest.raises(BadConsent, match="answers no request"):
            world.give_this(world.submission(replace(version, request_sha256=b"r" * 32)))
