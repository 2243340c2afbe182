"""Consents sealed in advance are given by executors, when the time has come, as the owner signed them and no wider."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.consent_kit import World, terms
from tests.leaves import leaves
from tests.legacy_kit import DAY, LATER, Heirs
from tests.succession_kit import Successor, succeed
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.consent import consents
from vault.consent.errors import BadHandover, StaleRecipient
from vault.db import Database
from vault.encoding import b64u
from vault.legacy import orders
from vault.legacy.errors import BadStatement
from vault.legacy.steps import LegacyState
from vault.parties.people import VaultState
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import BadConsent, ConsentKind
from vault.seal.advance import Advance, lock_advance, parse_advance, unlock_advance
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.identity import Identity
from vault.seal.ids import ConsentId, VaultId, new_id
from vault.seal.legacy import Act, Choice
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.log import PendingId

IN_FORCE = LATER + 30 * DAY
PURPOSES = terms(ConsentKind.COMPANY, "x").purposes
WIDE = {"post_mortem": PURPOSES, "not_after": unix_s(NOW + 400 * DAY)}


class Bequest(Heirs):
    """Heirs of an owner who sealed consents to a company in advance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.world = World(self.database, self.shortkeys)
        self.world.owner, self.world.source = self.owner, self.source

    def seal(self, version: ConsentVersion | None = None, request: str = "", **changed: Any) -> Advance:
        """Seal one; `changed` forges parts of it."""
        if version is None:
            version, request = self.world.first(**WIDE)
        world = self.world
        honest = Advance(
            world.signed(version),
            world.certificate(version),
            world.handover(KeyKind.IMPRINT, version),
            request,
        )
        return replace(honest, **changed)

    def plan_for(self, *sealed: Advance, **changed: Any) -> None:
        self.publish(choice=Choice.ANSWER, sealed=tuple(item.version.digest for item in sealed), **changed)

    def in_force(self) -> None:
        self.declare()
        assert self.take_effect(IN_FORCE) == 1

    def open(
        self, *sealed: Advance, now: datetime = IN_FORCE, signed: datetime | None = None, **said: Any
    ) -> PendingId:
        by = said.pop("by", None)
        statement = self.statement(by, signed or now, **{"act": Act.OPEN, "claim": self.now.claim} | said)
        with self.database.transaction() as session:
            return orders.open_sealed(session, self.id, statement, sealed, custody=self.world.custody, now=now)

    def event(self, sealed: Advance) -> ConsentEvent | None:
        from vault.schema.consent import parse_consent
        from vault.seal.dsse import unverified_record

        consent_id = ConsentId(parse_consent(unverified_record(sealed.version)).consent_id)
        with self.database.snapshot() as session:
            found = consents.find(session, consent_id)
        return None if found is None else found.current.event


@pytest.fixture
def bequest(database: Database, shortkeys: Database) -> Bequest:
    return Bequest(database, shortkeys)


@pytest.fixture
def quick(sqlite_database: Database, shortkeys: Database) -> Bequest:
    return Bequest(sqlite_database, shortkeys)


def test_a_consent_is_given_once_the_waiting_period_has_passed(bequest: Bequest) -> None:
    sealed, kept = bequest.seal(), bequest.seal()
    bequest.plan_for(sealed, kept)
    with pytest.raises(BadStatement, match="ready"):
        bequest.open(sealed, now=LATER, claim=new_id())
    bequest.declare()
    with pytest.raises(BadStatement, match="waiting"):
        bequest.open(sealed, now=LATER)
    bequest.take_effect(IN_FORCE)
    assert bequest.person.profile.deceased
    assert bequest.person.state is VaultState.ACTIVE
    first = bequest.open(sealed)
    assert bequest.event(sealed) is ConsentEvent.GIVEN
    assert bequest.event(kept) is None
    assert bequest.open(sealed) == first, "the same again changes nothing"
    assert bequest.open(sealed, kept) != first
    assert bequest.event(kept) is ConsentEvent.GIVEN
    bequest.sign_in(IN_FORCE + DAY)
    assert not bequest.person.profile.deceased
    assert {bequest.event(sealed), bequest.event(kept)} == {ConsentEvent.REVOKED}
    assert bequest.now.state is LegacyState.ENDED
    with pytest.raises(BadStatement, match="ended"):
        bequest.open(sealed, now=IN_FORCE + DAY)


def test_executors_may_freeze_what_answers_on(bequest: Bequest) -> None:
    bequest.plan_for(bequest.seal())

    def freeze(now: datetime = IN_FORCE, **said: Any) -> None:
        by, signed = said.pop("by", None), said.pop("signed", now)
        statement = bequest.statement(by, signed, **{"act": Act.FREEZE, "claim": bequest.now.claim} | said)
        with bequest.database.transaction() as session:
            orders.freeze(session, bequest.id, statement, now=now)

    bequest.declare()
    with pytest.raises(BadStatement, match="waiting"):
        freeze()
    bequest.take_effect(IN_FORCE)
    for wrong in ({"act": Act.OPEN}, {"claim": new_id()}, {"signed": IN_FORCE - timedelta(seconds=1)}):
        with pytest.raises(BadStatement):
            freeze(**wrong)
    with pytest.raises(SealError):
        freeze(by=bequest.owner.key)
    assert bequest.person.state is VaultState.ACTIVE
    freeze()
    assert bequest.person.state is VaultState.FROZEN
    assert bequest.steps() == ["legacy-plan", "legacy-claim", "legacy-force", "freeze"]


def test_what_was_sealed_in_advance_outlives_a_succession(bequest: Bequest) -> None:
    sealed = bequest.seal()
    bequest.plan_for(sealed)
    new = Successor.of(bequest.owner)
    succeed(bequest.database, new)
    bequest.in_force()
    bequest.open(sealed)
    assert bequest.event(sealed) is ConsentEvent.GIVEN


def test_a_sign_of_life_keeps_it_sealed(quick: Bequest) -> None:
    sealed = quick.seal()
    quick.plan_for(sealed)
    quick.declare()
    quick.sign_in(IN_FORCE - DAY)
    with pytest.raises(BadStatement, match="ended"):
        quick.open(sealed)
    assert quick.event(sealed) is None


def test_only_enough_executors_open_and_only_when_it_is_time(quick: Bequest) -> None:
    sealed = quick.seal()
    quick.plan_for(sealed)
    quick.in_force()
    for by in (SigningKey(new_seed()), quick.owner.key):
        with pytest.raises(SealError):
            quick.open(sealed, by=by)
    for wrong in ({"act": Act.ERASE}, {"claim": new_id()}, {"signed": IN_FORCE - timedelta(seconds=1)}):
        with pytest.raises(BadStatement):
            quick.open(sealed, **wrong)
    with pytest.raises(BadStatement):
        quick.open()
    assert quick.event(sealed) is None


def test_what_the_plan_does_not_name_is_not_given(quick: Bequest) -> None:
    sealed, unnamed = quick.seal(), quick.seal()
    quick.plan_for(sealed)
    quick.in_force()
    with pytest.raises(BadStatement, match="does not name"):
        quick.open(sealed, unnamed)
    assert quick.event(sealed) is None, "all or nothing"


def test_what_is_opened_twice_in_one_order_is_counted_once(quick: Bequest) -> None:
    sealed = quick.seal()
    quick.plan_for(sealed)
    quick.in_force()
    quick.open(*[sealed] * 16)
    with quick.database.snapshot() as session:
        (opened,) = [personal for kind, _, personal in leaves(session) if kind == "legacy-open"]
    assert opened is not None
    assert (opened["count"], opened["consents"]) == (1, [b64u(sealed.version.digest)])


def test_executors_of_a_plan_that_freezes_open_nothing(quick: Bequest) -> None:
    sealed = quick.seal()
    quick.publish()
    quick.in_force()
    with pytest.raises(BadStatement, match="names nothing to open"):
        quick.open(sealed)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (ConsentKind.COMPANY, {**WIDE, "post_mortem": frozenset()}),
        (ConsentKind.SELF, WIDE),
        (ConsentKind.COHORT, WIDE),
    ],
)
def test_only_what_is_for_after_death_is_given(quick: Bequest, kind: ConsentKind, changed: dict[str, Any]) -> None:
    """An owner's client never seals it; executors cannot make more of what was signed."""
    version, request = quick.world.first(kind, **changed)
    sealed = quick.seal(version, request)
    quick.plan_for(sealed)
    quick.in_force()
    with pytest.raises(BadStatement, match="for purposes after death only"):
        quick.open(sealed)


def test_everything_that_comes_with_a_consent_is_checked_as_ever(quick: Bequest) -> None:
    version, request = quick.world.first(**WIDE)
    world, stranger = quick.world, SigningKey(new_seed())
    honest = quick.seal(version, request)
    quick.plan_for(honest)
    quick.in_force()
    former, raw = Identity(new_seed()), world.handover(KeyKind.RAW, version)
    for changed, refusal in (
        ({"handover": world.handover(KeyKind.IMPRINT, version, to=former)}, StaleRecipient),
        ({"handover": raw}, BadHandover),
        ({"handover": world.handover(KeyKind.IMPRINT, version, signer=stranger)}, SealError),
        ({"handover": world.handover(KeyKind.IMPRINT, version, not_after_s=version.terms.not_after + 1)}, BadHandover),
        ({"request": world.request(version.terms)}, BadConsent),
        ({"request": ""}, BadConsent),
        ({"certificate": honest.version}, SealError),
        ({"version": world.signed(version, stranger)}, SealError),
    ):
        with pytest.raises(refusal):
            quick.open(replace(honest, **changed))
    quick.open(honest)


def test_a_consent_signed_long_before_the_plan_is_not_given(quick: Bequest) -> None:
    sealed = quick.seal()
    later = NOW + 2 * DAY
    quick.plan_for(sealed, now=later)
    quick.declare(now=later + DAY)
    assert quick.take_effect(later + 31 * DAY) == 1
    with pytest.raises(BadConsent):
        quick.open(sealed, now=later + 31 * DAY)


def test_what_is_sealed_opens_under_its_own_secret_and_vault_only(quick: Bequest) -> None:
    sealed, secret, vault = quick.seal(), new_seed(), quick.owner.vault
    locked = lock_advance(sealed, secret, vault)
    assert unlock_advance(locked, secret, vault) == sealed
    for wrong in ((locked, new_seed(), vault), (locked, secret, VaultId(new_id())), (locked[:-1], secret, vault)):
        with pytest.raises(SealError):
            unlock_advance(*wrong)
    for bad in (b"", sealed.encoded[:-1], sealed.encoded + b"\x00", sealed.version.encoded, b"\x00" * (2 << 20)):
        with pytest.raises(SealError):
            parse_advance(bad)
