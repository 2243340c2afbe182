"""Consents change only by what the person signed, never wider than asked, and never come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.consent_kit import NOW, PURPOSE, World, spending
from tests.leaves import leaves
from tests.vault_kit import Owner, begin
from vault.consent import changes, consents, events, handovers
from vault.consent.errors import BadHandover, ConsentConflict, KeysGone, NotSpent, UnknownConsent
from vault.consent.versions import Submission
from vault.db import Database
from vault.encoding import b64u
from vault.parties import companies
from vault.parties.companies import CompanyStatus
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentEvent, parse_consent
from vault.schema.terms import BadConsent, ConsentKind
from vault.schema.trace import Period
from vault.seal.derive import pairwise_key
from vault.seal.dsse import PayloadType, parse_envelope, verify_envelope
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.identity import Identity
from vault.seal.ids import ConsentId, sha256
from vault.seal.ring import extend_page
from vault.seal.signing import SigningKey, new_seed
from vault.store import shortkeys as short_key_store

BREAD, HEALTH = Category("pd:Purchase"), Category("pd:Health")
LATER = NOW + timedelta(days=31)


@pytest.fixture
def world(database: Database, shortkeys: Database) -> World:
    return World(database, shortkeys)


def find(world: World, consent_id: bytes) -> consents.Consent:
    with world.database.snapshot() as session:
        found = consents.find(session, ConsentId(consent_id))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ConsentKind)
def test_a_given_consent_is_in_force_with_its_keys_and_leaves(world: World, kind: ConsentKind) -> None:
    version = world.give(kind)
    found = find(world, version.consent_id)
    assert (found.current, found.live, found.vault_id) == (version, True, world.owner.vault)
    assert found.quota_left(NOW) == version.terms.quota_per_month
    with world.database.snapshot() as session:
        for key_kind in handovers.REQUIRED[kind]:
            handovers.read(session, world.shortkeys, found.consent_id, 1, key_kind)
        logged = {name: (public, personal) for name, public, personal in leaves(session)}
    public, personal = logged["consent"]
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
    assert not find(world, version.consent_id).live


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


# --- Keys ---


def test_a_raw_handover_under_a_company_consent_is_refused(world: World) -> None:
    version, request = world.first()
    imprint = world.handover(KeyKind.IMPRINT, version)
    raw = world.handover(KeyKind.RAW, version)
    for sent in ([raw], [imprint, raw], [raw, raw], [imprint, imprint], []):
        with pytest.raises(BadHandover, match="exactly one handover"):
            world.give_this(world.submission(version, request, handovers=tuple(sent)))


def test_raw_keys_never_go_to_the_serving_identity(world: World) -> None:
    version, _ = world.first(ConsentKind.COHORT)
    raw = world.handover(KeyKind.RAW, version, to=world.serving)
    with pytest.raises(BadHandover, match="another key"):
        world.give_this(world.submission(version, handovers=(raw,)))


def _last_bit_flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


Forge = Callable[[World, Any], bytes]
FORGERIES: dict[str, Forge] = {
    "another consent": lambda w, v: w.handover(KeyKind.IMPRINT, v, consent=ConsentId(b"x" * 16)),
    "another vault": lambda w, v: w.handover(KeyKind.IMPRINT, v, vault=b"x" * 16),
    "another signer": lambda w, v: w.handover(KeyKind.IMPRINT, v, signer=SigningKey(new_seed())),
    "another identity": lambda w, v: w.handover(KeyKind.IMPRINT, v, to=Identity(new_seed())),
    "before the consent": lambda w, v: w.handover(KeyKind.IMPRINT, v, not_before_s=v.terms.not_before - 1),
    "after the consent": lambda w, v: w.handover(KeyKind.IMPRINT, v, not_after_s=v.terms.not_after + 1),
    "cut short": lambda w, v: w.handover(KeyKind.IMPRINT, v)[:-1],
    "altered": lambda w, v: _last_bit_flipped(w.handover(KeyKind.IMPRINT, v)),
    "empty": lambda w, v: b"",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_handover_that_is_not_this_consents_is_refused(world: World, forge: Forge) -> None:
    version, request = world.first()
    with pytest.raises((BadHandover, SealError)):
        world.give_this(world.submission(version, request, handovers=(forge(world, version),)))


def test_keys_beyond_the_consent_are_refused(database: Database, shortkeys: Database) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    version, request = world.first()
    health = world.owner.compartment(HEALTH)
    wider = world.handover(KeyKind.IMPRINT, version, compartments=[world.owner.compartment(), health])
    with pytest.raises(BadHandover, match="does not cover"):
        world.give_this(world.submission(version, request, handovers=(wider,)))
    october = Period("2026-10")
    version, request = world.first(data_from=october, data_to=october)
    handed = world.handover(KeyKind.IMPRINT, version, compartments=[world.owner.compartment()])
    envelope, certificate = world.signed(version), world.certificate(version)
    with pytest.raises(BadHandover, match="does not cover"):
        world.give_this(Submission(envelope, (handed,), certificate, request))


def test_a_compartment_that_the_ring_does_not_list_is_refused(world: World) -> None:
    version, request = world.first()
    elsewhere = Owner(root=world.owner.root, seeds=world.owner.seeds)
    page, locked = extend_page(
        None,
        bytes(32),
        vault=world.owner.vault,
        period=version.terms.data_from,
        categories=[BREAD],
        root=elsewhere.root,
    )
    world.owner.locked |= locked
    handed = world.handover(KeyKind.IMPRINT, version, compartments=list(page.compartments.values()))
    with pytest.raises(BadHandover, match="does not list"):
        world.give_this(world.submission(version, request, handovers=(handed,)))


# --- Narrowing, renewing, ending ---


def test_narrowing_only_narrows_and_takes_keys_away(database: Database, shortkeys: Database) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    both = frozenset({BREAD, HEALTH})
    first = world.give(necessary=both, explicit_special=frozenset({HEALTH}))
    with world.database.snapshot() as session:
        digest = handovers.find_live(session, ConsentId(first.consent_id), 1, KeyKind.IMPRINT)
    narrow = replace(first.terms, necessary=frozenset({BREAD}), explicit_special=frozenset())
    second = world.next(first, ConsentEvent.NARROWED, terms=narrow)
    old = world.handover(KeyKind.IMPRINT, first)
    with pytest.raises(BadHandover, match="does not cover"):
        world.amend(second, handovers=(old,))
    with pytest.raises(BadHandover, match="exactly one"):
        world.amend(second, handovers=())
    world.amend(second)
    short_key_store.delete_scheduled(world.database, world.shortkeys)
    assert short_key_store.read(world.shortkeys, [short_key_store.handover_key(digest)]) == {}
    with world.database.snapshot() as session:
        with pytest.raises(KeysGone):
            handovers.read(session, world.shortkeys, ConsentId(first.consent_id), 1, KeyKind.IMPRINT)
        handovers.read(session, world.shortkeys, ConsentId(first.consent_id), 2, KeyKind.IMPRINT)
    third = world.next(second, ConsentEvent.NARROWED, terms=first.terms)
    with pytest.raises(BadConsent, match="inside its previous terms"):
        world.amend(third)
    assert find(world, first.consent_id).current == second


def test_narrowing_answers_the_same_request(world: World) -> None:
    first = world.give()
    with pytest.raises(BadConsent, match="previous terms"):
        world.amend(world.next(first, ConsentEvent.NARROWED, request_sha256=b"r" * 32))


def test_renewing_stays_inside_a_request(world: World) -> None:
    first = world.give()
    longer = replace(first.terms, not_after=first.terms.not_after + 86_400)
    wider = world.next(first, ConsentEvent.RENEWED, terms=longer)
    with pytest.raises(BadConsent, match="more than was asked"):
        world.amend(wider)
    asked = world.request(longer)
    world.amend(replace(wider, request_sha256=sha256(asked.encode())), asked)
    assert find(world, first.consent_id).current.terms == longer


@pytest.mark.parametrize("event", [ConsentEvent.NARROWED, ConsentEvent.RENEWED])
def test_versions_come_in_order(world: World, event: ConsentEvent) -> None:
    first = world.give()
    second = world.next(first, event)
    world.amend(second)
    for stale in (second, world.next(first, event), world.next(world.next(second, event), event)):
        with pytest.raises(BadConsent):
            world.amend(stale)
    with pytest.raises(BadConsent):
        world.withdraw(first)
    with pytest.raises(BadConsent, match="future"):
        world.amend(world.next(second, event, event_time=second.event_time + 301))


def test_another_vault_cannot_touch_a_consent(world: World) -> None:
    first = world.give()
    stranger = begin(world.database, world.shortkeys)[0]
    envelope = world.signed(world.next(first, ConsentEvent.WITHDRAWN))
    with pytest.raises(UnknownConsent), world.database.transaction() as session:
        changes.withdraw(session, envelope, vault_id=stranger.vault, now=NOW)
    key = pairwise_key(stranger.seeds.pairwise, first.terms.grantee)
    theirs = world.signed(world.next(first, ConsentEvent.WITHDRAWN, principal_key=key.public_key), key)
    with pytest.raises(BadConsent), world.database.transaction() as session:
        changes.withdraw(session, theirs, vault_id=world.owner.vault, now=NOW)
    assert find(world, first.consent_id).live


def test_withdrawing_ends_everything_at_once(world: World) -> None:
    first = world.give()
    consent_id = ConsentId(first.consent_id)
    world.withdraw(first)
    found = find(world, first.consent_id)
    assert (found.live, found.current.event) == (False, ConsentEvent.WITHDRAWN)
    with world.database.snapshot() as session:
        with pytest.raises(KeysGone):
            handovers.read(session, world.shortkeys, consent_id, 1, KeyKind.IMPRINT)
        states = [public["event_state"] for kind, public, _ in leaves(session) if kind == "consent"]
    assert states == ["dpv:ConsentGiven", "dpv:ConsentWithdrawn"]
    for version in (first, world.next(first, ConsentEvent.WITHDRAWN)):
        with pytest.raises(NotSpent), world.database.transaction() as session:
            events.spend(session, spending(world, version), NOW)


def test_a_crash_between_commit_and_short_key_delete_leaves_no_way_back(world: World) -> None:
    first = world.give()
    with world.database.snapshot() as session:
        digest = handovers.find_live(session, ConsentId(first.consent_id), 1, KeyKind.IMPRINT)
        backup = session.connection().execute(sqlalchemy.text("SELECT locked FROM handover")).scalar_one()
    name = short_key_store.handover_key(digest)
    envelope = world.signed(world.next(first, ConsentEvent.WITHDRAWN))
    with world.database.transaction() as session:
        changes.withdraw(session, envelope, vault_id=world.owner.vault, now=NOW)
    # Killed here. The keys are already out of reach, and the next boot finishes the delete.
    assert backup
    assert short_key_store.read(world.shortkeys, [name])
    with world.database.snapshot() as session, pytest.raises(KeysGone):
        handovers.read(session, world.shortkeys, ConsentId(first.consent_id), 1, KeyKind.IMPRINT)
    assert short_key_store.delete_scheduled(world.database, world.shortkeys) == 1
    assert short_key_store.read(world.shortkeys, [name]) == {}


def test_a_crash_before_the_commit_changes_nothing(world: World) -> None:
    first = world.give()
    envelope = world.signed(world.next(first, ConsentEvent.WITHDRAWN))

    class Killed(Exception):
        pass

    with pytest.raises(Killed), world.database.transaction() as session:
        changes.withdraw(session, envelope, vault_id=world.owner.vault, now=NOW)
        raise Killed
    assert short_key_store.delete_scheduled(world.database, world.shortkeys) == 0
    with world.database.snapshot() as session:
        handovers.read(session, world.shortkeys, ConsentId(first.consent_id), 1, KeyKind.IMPRINT)


def test_only_uncovered_categories_need_a_new_epoch(database: Database, shortkeys: Database) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    health = frozenset({HEALTH})
    own = world.give(ConsentKind.SELF, optional=health, explicit_special=health)
    cohort = world.give(ConsentKind.COHORT)
    company = world.give()
    assert world.withdraw(company).new_epoch_needed == ()
    assert world.withdraw(own).new_epoch_needed == (HEALTH,)
    assert world.withdraw(cohort).new_epoch_needed == (BREAD,)


def test_narrowing_a_self_consent_needs_a_new_epoch(database: Database, shortkeys: Database) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    own = world.give(ConsentKind.SELF, optional=frozenset({HEALTH}))
    narrowed = world.next(own, ConsentEvent.NARROWED, terms=replace(own.terms, optional=frozenset()))
    assert world.amend(narrowed).new_epoch_needed == (HEALTH,)


@pytest.mark.parametrize(
    "event", [ConsentEvent.REVOKED, ConsentEvent.RETURNED, ConsentEvent.INVALIDATED, ConsentEvent.EXPIRED]
)
def test_others_end_a_consent_under_their_own_name(world: World, event: ConsentEvent) -> None:
    first = world.give()
    now = LATER if event is ConsentEvent.EXPIRED else NOW
    with world.database.transaction() as session:
        due = changes.due_to_expire(session, now=now)
        assert due == ([first.consent_id] if event is ConsentEvent.EXPIRED else [])
        changes.end(session, ConsentId(first.consent_id), event, service=world.service, now=now)
    found = find(world, first.consent_id)
    assert (found.live, found.current.event) == (False, event)
    signed = verify_envelope(parse_envelope(found.stored.envelope), PayloadType.CONSENT, world.service.public_key)
    assert parse_consent(signed).event is event
    with world.database.snapshot() as session, pytest.raises(KeysGone):
        handovers.read(session, world.shortkeys, ConsentId(first.consent_id), 1, KeyKind.IMPRINT)


def test_others_cannot_do_what_only_the_person_can(world: World) -> None:
    first = world.give()
    for event in ConsentEvent:
        if event.by_person:
            with pytest.raises(BadConsent, match="Only the person"), world.database.transaction() as session:
                changes.end(session, ConsentId(first.consent_id), event, service=world.service, now=NOW)
    with pytest.raises(BadConsent, match="window"), world.database.transaction() as session:
        changes.end(session, ConsentId(first.consent_id), ConsentEvent.EXPIRED, service=world.service, now=NOW)
    forged = world.signed(world.next(first, ConsentEvent.REVOKED), world.service)
    with pytest.raises(SealError), world.database.transaction() as session:
        changes.withdraw(session, forged, vault_id=world.owner.vault, now=NOW)


def test_an_expired_consent_is_renewed_with_new_keys(world: World) -> None:
    first = world.give(ConsentKind.SELF)
    with world.database.transaction() as session:
        ended = changes.end(
            session, ConsentId(first.consent_id), ConsentEvent.EXPIRED, service=world.service, now=LATER
        )
    envelope = find(world, first.consent_id).sha256
    after = replace(first.terms, not_after=int(LATER.timestamp()) + 86_400)
    renewed = world.next(
        ended.version, ConsentEvent.RENEWED, terms=after, prev=envelope, event_time=ended.version.event_time
    )
    submission = world.submission(renewed)
    with world.database.transaction() as session:
        changes.amend(session, submission, vault_id=world.owner.vault, custody=world.custody, now=LATER)
    assert find(world, first.consent_id).live


def test_history_and_lists(world: World) -> None:
    first = world.give()
    second = world.next(first, ConsentEvent.NARROWED)
    world.amend(second)
    world.give(ConsentKind.SELF)
    with world.database.snapshot() as session:
        assert {item.consent_id for item in consents.list_to(session, world.company.company_id)} == {first.consent_id}
        assert consents.list_to(session, world.company.company_id, after=first.consent_id) == []
        assert len(consents.list_for(session, world.owner.vault)) == 2
        stored = consents.history(session, ConsentId(first.consent_id))
        assert consents.histories(session, world.owner.vault)[ConsentId(first.consent_id)] == stored
    assert [item.version for item in stored] == [1, 2]
    assert stored[0].request == stored[1].request != ""


def test_purposes_cannot_be_swapped(world: World) -> None:
    first = world.give()
    other = replace(first.terms, purposes=frozenset({PURPOSE, Purpose("dpv:Marketing")}))
    with pytest.raises(BadConsent):
        world.amend(world.next(first, ConsentEvent.NARROWED, terms=other))
