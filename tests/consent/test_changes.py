"""Consents are narrowed, renewed and ended by whom they belong to, in order, and their keys go with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy

from tests.consent_kit import NOW, PURPOSE, World, spending
from tests.leaves import leaves
from tests.vault_kit import begin
from vault.consent import changes, consents, events, handovers
from vault.consent.errors import BadHandover, KeysGone, NotSpent, UnknownConsent
from vault.db import Database
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentEvent, parse_consent
from vault.schema.terms import BadConsent, ConsentKind
from vault.seal.derive import pairwise_key
from vault.seal.dsse import PayloadType, parse_envelope, verify_envelope
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId, sha256
from vault.store import shortkeys as short_key_store

BREAD, HEALTH = Category("pd:Purchase"), Category("pd:Health")
LATER = NOW + timedelta(days=31)


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
    assert world.find(first.consent_id).current == second


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
    assert world.find(first.consent_id).current.terms == longer


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
    assert world.find(first.consent_id).live


def test_withdrawing_ends_everything_at_once(world: World) -> None:
    first = world.give()
    consent_id = ConsentId(first.consent_id)
    world.withdraw(first)
    found = world.find(first.consent_id)
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
    health = frozenset({HEALTH})
    own = world.give(ConsentKind.SELF, optional=health, explicit_special=health)
    narrowed = world.next(own, ConsentEvent.NARROWED, terms=replace(own.terms, optional=frozenset()))
    assert world.amend(narrowed).new_epoch_needed == (HEALTH,)


@pytest.mark.parametrize("event", [ConsentEvent.NARROWED, ConsentEvent.RENEWED])
def test_taking_an_opt_in_back_needs_a_new_epoch_unless_another_consent_holds_one(
    database: Database, shortkeys: Database, event: ConsentEvent
) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    health: frozenset[Category] = frozenset({HEALTH})
    never = world.give(ConsentKind.COHORT, optional=health)
    own = world.give(ConsentKind.SELF, optional=health, explicit_special=health)
    without = replace(own.terms, explicit_special=frozenset())
    taken = world.next(own, event, terms=without)
    assert world.amend(taken).new_epoch_needed == (HEALTH,), "the cohort's consent never had these keys"
    allowed = world.next(never, ConsentEvent.RENEWED, terms=replace(never.terms, explicit_special=health))
    assert world.amend(allowed).new_epoch_needed == ()
    again = world.next(taken, ConsentEvent.RENEWED, terms=own.terms)
    assert world.amend(again).new_epoch_needed == ()
    assert world.amend(world.next(again, event, terms=without)).new_epoch_needed == ()
    assert world.withdraw(allowed).new_epoch_needed == (HEALTH,)


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
    found = world.find(first.consent_id)
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
    envelope = world.find(first.consent_id).sha256
    after = replace(first.terms, not_after=int(LATER.timestamp()) + 86_400)
    renewed = world.next(
        ended.version, ConsentEvent.RENEWED, terms=after, prev=envelope, event_time=ended.version.event_time
    )
    submission = world.submission(renewed)
    with world.database.transaction() as session:
        changes.amend(session, submission, vault_id=world.owner.vault, custody=world.custody, now=LATER)
    assert world.find(first.consent_id).live


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
