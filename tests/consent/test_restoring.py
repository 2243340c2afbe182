"""What a restored database forgot of a consent's end comes back: as the person signed it, where that still follows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.consent_kit import NOW, World
from vault.consent import consents, handovers
from vault.consent.consents import Consent
from vault.consent.errors import KeysGone
from vault.consent.restoring import end_again, is_withdrawal
from vault.db import Database
from vault.encoding import JsonObject, b64u
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId
from vault.seal.signing import SigningKey, new_seed


@pytest.fixture
def world(database: Database, shortkeys: Database) -> World:
    return World(database, shortkeys)


def again(world: World, given: ConsentVersion, event: ConsentEvent, signed: bytes, version: int = 2) -> Consent:
    public: JsonObject = {"event_state": event.state}
    events = [(public, {"consent": b64u(given.consent_id), "version": version}, signed)]
    with world.database.transaction() as session:
        ended = end_again(session, events, service=world.service, now=NOW)
        assert end_again(session, events, service=world.service, now=NOW) == []
        found = consents.find(session, ConsentId(given.consent_id))
    assert found is not None
    assert ended == ([] if found.live else [given.consent_id])
    return found


def test_the_persons_own_signature_ends_it(world: World) -> None:
    given = world.give()
    signed = world.signed(world.next(given, ConsentEvent.WITHDRAWN))
    found = again(world, given, ConsentEvent.WITHDRAWN, signed.encoded)
    assert (found.current.event, found.stored.envelope) == (ConsentEvent.WITHDRAWN, signed.encoded)


def test_what_does_not_follow_or_is_forged_or_damaged_is_ended_by_the_service(world: World) -> None:
    def withdrawal(given: ConsentVersion, **changed: Any) -> ConsentVersion:
        return world.next(given, ConsentEvent.WITHDRAWN, **changed)

    for forge in (
        lambda given: world.signed(withdrawal(world.next(given, ConsentEvent.NARROWED))).encoded,
        lambda given: world.signed(withdrawal(given), SigningKey(new_seed())).encoded,
        lambda _: world.signed(withdrawal(world.give())).encoded,
        lambda given: world.signed(withdrawal(given, prev=bytes(32))).encoded,
        lambda given: world.signed(world.next(given, ConsentEvent.NARROWED)).encoded,
        lambda _: b"",
        lambda _: b"\xff" * 40,
    ):
        given = world.give()
        found = again(world, given, ConsentEvent.WITHDRAWN, forge(given))
        assert (found.live, found.current.event) == (False, ConsentEvent.REVOKED)


@pytest.mark.parametrize("event", [ConsentEvent.NARROWED, ConsentEvent.RENEWED])
def test_a_consent_of_which_a_later_version_is_lost_has_no_keys_until_it_is_renewed(
    world: World, event: ConsentEvent
) -> None:
    """Nobody knows the later terms here: under those of before nothing is answered, with or without keys."""
    given, untouched = world.give(), world.give()
    assert again(world, given, event, b"").live
    assert again(world, untouched, event, b"", version=1).live  # what the database has itself
    with world.database.snapshot() as session:
        with pytest.raises(KeysGone):
            handovers.find_live(session, ConsentId(given.consent_id), given.version, KeyKind.IMPRINT)
        handovers.find_live(session, ConsentId(untouched.consent_id), given.version, KeyKind.IMPRINT)
    renewed = world.next(given, ConsentEvent.RENEWED)
    world.amend(renewed)
    with world.database.snapshot() as session:
        handovers.find_live(session, ConsentId(given.consent_id), renewed.version, KeyKind.IMPRINT)


def test_only_the_persons_own_end_is_kept_with_what_was_signed() -> None:
    assert [event for event in ConsentEvent if is_withdrawal({"event_state": event.state})] == [ConsentEvent.WITHDRAWN]
