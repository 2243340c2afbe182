"""Consents end by themselves when their window is over, once, and only then."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.consent_kit import World
from tests.vault_kit import NOW
from vault.consent import changes, consents, handovers
from vault.consent.errors import KeysGone
from vault.consent.expiry import expire_due
from vault.consent.models import handover
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind
from vault.seal.handover import KeyKind
from vault.seal.ids import ID_BYTES, ConsentId
from vault.store import shortkeys

LATER = NOW + timedelta(days=31)


def events(world: World, consent_id: bytes) -> list[ConsentEvent]:
    with world.database.snapshot() as session:
        kept = consents.history(session, ConsentId(consent_id))
    return [consents._parsed(item.envelope).event for item in kept]


def expire(world: World) -> int:
    return expire_due(world.database, world.custody, world.service, now=LATER)


def test_what_is_over_ends_and_loses_its_keys_and_the_rest_stays(world: World) -> None:
    over = world.give()
    staying = world.give(not_after=over.terms.not_after + 90 * 86_400)
    assert expire_due(world.database, world.custody, world.service, now=NOW) == 0
    assert expire(world) == 1
    assert events(world, over.consent_id) == [ConsentEvent.GIVEN, ConsentEvent.EXPIRED]
    assert events(world, staying.consent_id) == [ConsentEvent.GIVEN]
    with world.database.snapshot() as session, pytest.raises(KeysGone):
        handovers.read(session, world.shortkeys, ConsentId(over.consent_id), 1, KeyKind.IMPRINT)
    assert over.consent_id in world.forgotten
    assert expire(world) == 0


def test_what_was_withdrawn_does_not_expire(world: World) -> None:
    over = world.give()
    world.withdraw(over)
    assert expire(world) == 0
    assert events(world, over.consent_id) == [ConsentEvent.GIVEN, ConsentEvent.WITHDRAWN]


def test_one_that_changed_meanwhile_is_left_alone_and_the_others_still_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed, over = world.give(ConsentKind.SELF), world.give()
    due = [ConsentId(renewed.consent_id), ConsentId(over.consent_id)]
    terms = replace(renewed.terms, not_after=renewed.terms.not_after + 90 * 86_400)
    world.amend(world.next(renewed, ConsentEvent.RENEWED, terms=terms))
    monkeypatch.setattr(changes, "due_to_expire", lambda *_, **__: due)
    assert expire(world) == 1
    assert events(world, renewed.consent_id) == [ConsentEvent.GIVEN, ConsentEvent.RENEWED]
    assert events(world, over.consent_id)[-1] is ConsentEvent.EXPIRED


def test_one_that_was_erased_meanwhile_keeps_no_other_from_losing_its_keys(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, erased = world.give(), b"e" * ID_BYTES
    monkeypatch.setattr(changes, "due_to_expire", lambda *_, **__: [ConsentId(over.consent_id), ConsentId(erased)])
    assert expire(world) == 1
    with world.database.snapshot() as session:
        (digest,) = session.connection().execute(select(handover.c.digest)).scalars()
    assert shortkeys.read(world.shortkeys, [shortkeys.handover_key(digest)]) == {}


def test_two_processes_expire_a_consent_once(world: World) -> None:
    over = world.give()
    ended: list[int] = []
    both = [threading.Thread(target=lambda: ended.append(expire(world))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(240)
    assert sum(ended) == 1
    assert events(world, over.consent_id) == [ConsentEvent.GIVEN, ConsentEvent.EXPIRED]


def test_a_process_that_looked_before_another_ended_it_does_not_end_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = world.give()
    assert expire(world) == 1
    monkeypatch.setattr(changes, "due_to_expire", lambda *_, **__: [ConsentId(over.consent_id)])
    assert expire(world) == 0
    assert events(world, over.consent_id) == [ConsentEvent.GIVEN, ConsentEvent.EXPIRED]


def test_what_a_person_signed_leaves_the_memory_of_every_process(world: World) -> None:
    given = world.give()
    world.find(given.consent_id)
    assert consents._parsed.cache_info().currsize
    assert expire_due(world.database, world.custody, world.service, now=NOW) == 0  # as each process does by itself
    assert not consents._parsed.cache_info().currsize
    world.find(given.consent_id)
    with world.database.transaction() as session:
        changes.forget(session, world.owner.vault)  # as erasing everything does
    assert not consents._parsed.cache_info().currsize
