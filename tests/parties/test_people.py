from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
import sqlalchemy
from sqlmodel import select

from tests.company_kit import b64
from tests.leaves import leaves
from tests.vault_kit import wait_until_blocked
from vault.db import Database
from vault.parties import marks, people
from vault.parties.people import BadGenesis, UnknownVault, VaultExists, VaultState
from vault.proof.leaf import LeafKind
from vault.schema.freshness import Freshness
from vault.seal.dsse import Envelope
from vault.seal.errors import SealError
from vault.seal.ids import VaultId, sha256
from vault.seal.person import Profile, sign_freeze, sign_genesis, sign_profile
from vault.seal.signing import SigningKey, new_seed


class Owner:
    """An owner with the kit's key and the key after it."""

    def __init__(self, now: datetime, profile: Profile | None = None) -> None:
        self.key, self.kit, self.next_kit = (SigningKey(new_seed()) for _ in range(3))
        self.genesis = sign_genesis(
            self.key, self.kit.public_key, created_at=int(now.timestamp()), time_zone="Europe/Zurich", profile=profile
        )
        self.vault_id = VaultId(sha256(self.genesis.payload)[:16])


def _create(database: Database, owner: Owner, now: datetime) -> None:
    with database.transaction() as session:
        people.create(session, owner.genesis, now=now)


def test_a_vault_begins_with_its_genesis(database: Database, now: datetime) -> None:
    owner = Owner(now, Profile(minor=True, guardian_ok=True))
    _create(database, owner, now)
    with database.snapshot() as session:
        person = people.get(session, owner.vault_id)
        logged = leaves(session)
        kept = people.records(session, owner.vault_id)
    assert person.owner_key == owner.key.public_key
    assert (person.time_zone, person.created_at, person.state) == ("Europe/Zurich", now, VaultState.ACTIVE)
    assert person.profile == Profile(minor=True, guardian_ok=True, deceased=False)
    assert kept == [owner.genesis.encoded]
    personal = {"vault": b64(owner.vault_id), "record": b64(owner.genesis.digest), "at": int(now.timestamp())}
    assert logged == [("vault-genesis", {"kind": "vault-genesis", "period": "2026-11"}, personal)]


def test_a_vault_begins_once(database: Database, now: datetime) -> None:
    owner = Owner(now)
    _create(database, owner, now)
    with pytest.raises(VaultExists):
        _create(database, owner, now)


def test_a_genesis_by_another_key_or_from_the_future_refuses(sqlite_database: Database, now: datetime) -> None:
    owner, thief = Owner(now), SigningKey(new_seed())
    by_thief = sign_genesis(thief, thief.public_key, created_at=1, time_zone="UTC").signatures
    for bad in (
        Envelope(owner.genesis.payload_type, owner.genesis.payload, by_thief),
        Envelope(
            owner.genesis.payload_type, owner.genesis.payload.replace(b"Zurich", b"Berlin"), owner.genesis.signatures
        ),
    ):
        with pytest.raises(SealError), sqlite_database.transaction() as session:
            people.create(session, bad, now=now)
    with pytest.raises(BadGenesis):
        _create(sqlite_database, Owner(now + timedelta(hours=1)), now)


def test_freezing_follows_the_owner_and_no_order_works_twice(database: Database, now: datetime) -> None:
    owner = Owner(now)
    _create(database, owner, now)
    freeze = sign_freeze(owner.key, frozen=True, vault_id=owner.vault_id, sequence=1)
    thaw = sign_freeze(owner.key, frozen=False, vault_id=owner.vault_id, sequence=2)
    with database.transaction() as session:
        assert session.scalar(select(people.not_frozen(owner.vault_id))) is True
        people.follow_freeze(session, owner.vault_id, freeze, now=now)
        assert session.scalar(select(people.not_frozen(owner.vault_id))) is False
        people.follow_freeze(session, owner.vault_id, thaw, now=now)
        assert session.scalar(select(people.not_frozen(owner.vault_id))) is True
    for replayed in (freeze, thaw):
        with pytest.raises(SealError), database.transaction() as session:
            people.follow_freeze(session, owner.vault_id, replayed, now=now)
    with database.snapshot() as session:
        assert [kind for kind, _, _ in leaves(session)] == ["vault-genesis", "freeze", "freeze"]
        assert session.scalar(select(people.not_frozen(b"y" * 16))) is False


def test_what_a_restored_database_forgot_is_followed_as_it_was_signed_and_else_only_forbids(
    database: Database, now: datetime
) -> None:
    owner, thief = Owner(now), SigningKey(new_seed())
    _create(database, owner, now)
    vault = owner.vault_id

    def repeat(envelope: Envelope, kind: LeafKind = LeafKind.FREEZE, *, forbids: bool) -> tuple[bool, VaultState]:
        with database.transaction() as session:
            followed = people.repeat(session, vault, kind, envelope, forbids=forbids, now=now)
            return followed, people.get(session, vault).state

    freeze = sign_freeze(owner.key, frozen=True, vault_id=vault, sequence=1)
    thaw = sign_freeze(owner.key, frozen=False, vault_id=vault, sequence=2)
    assert repeat(thaw, forbids=False) == (False, VaultState.ACTIVE)  # not the next
    assert repeat(freeze, forbids=True) == (True, VaultState.FROZEN)
    assert repeat(freeze, forbids=True) == (False, VaultState.FROZEN)  # known by now
    forged = sign_freeze(thief, frozen=False, vault_id=vault, sequence=2)
    for forbids in (True, False):
        assert repeat(forged, forbids=forbids) == (forbids, VaultState.FROZEN)
    dead = sign_profile(owner.key, Profile(deceased=True), vault_id=vault, sequence=2)
    assert repeat(dead, LeafKind.PROFILE, forbids=False) == (True, VaultState.FROZEN)
    alive = sign_profile(thief, Profile(), vault_id=vault, sequence=3)
    assert repeat(alive, LeafKind.PROFILE, forbids=False) == (False, VaultState.FROZEN)
    with database.snapshot() as session:
        assert people.get(session, vault).profile == Profile(deceased=True)
    thaw = sign_freeze(owner.key, frozen=False, vault_id=vault, sequence=3)
    assert repeat(thaw, forbids=False) == (True, VaultState.ACTIVE)
    assert repeat(owner.genesis, forbids=True) == (False, VaultState.ACTIVE)
    executors = sign_profile(thief, Profile(), vault_id=vault, sequence=9)  # stands for a record of somebody else's
    assert repeat(executors, forbids=True) == (True, VaultState.FROZEN)
    with database.transaction() as session:
        people.call_deceased(session, vault, owner.genesis, deceased=False, now=now)
    for forbids in (False, True):
        assert (
            repeat(sign_profile(thief, Profile(), vault_id=vault, sequence=4), LeafKind.PROFILE, forbids=forbids)[0]
            == forbids
        )
        with database.snapshot() as session:
            assert people.get(session, vault).profile.deceased == forbids
    with database.transaction() as session:
        assert not people.repeat(session, VaultId(bytes(16)), LeafKind.FREEZE, freeze, forbids=True, now=now)


def test_a_profile_is_signed_in_sequence(database: Database, now: datetime) -> None:
    owner, thief = Owner(now), SigningKey(new_seed())
    _create(database, owner, now)
    dead = Profile(deceased=True)
    with database.transaction() as session:
        envelope = sign_profile(owner.key, dead, vault_id=owner.vault_id, sequence=1)
        people.set_profile(session, owner.vault_id, envelope, now=now)
        assert people.get(session, owner.vault_id).profile == dead
    for wrong in (
        envelope,
        sign_profile(thief, Profile(), vault_id=owner.vault_id, sequence=2),
        sign_profile(owner.key, Profile(), vault_id=owner.vault_id, sequence=3),
        sign_freeze(owner.key, frozen=True, vault_id=owner.vault_id, sequence=2),
    ):
        with pytest.raises(SealError), database.transaction() as session:
            people.set_profile(session, owner.vault_id, wrong, now=now)


def test_who_begins_waits_for_whole_months_and_chooses_for_nobody_else(database: Database, now: datetime) -> None:
    owner, other = Owner(now), Owner(now)
    _create(database, owner, now)
    _create(database, other, now)
    with database.transaction() as session:
        assert people.get(session, owner.vault_id).freshness is Freshness.MONTH
        assert marks.choose_freshness(session, owner.vault_id, Freshness.WEEK).freshness is Freshness.WEEK
        before = len(leaves(session))
    with database.transaction() as session:
        people.follow_freeze(
            session, owner.vault_id, sign_freeze(owner.key, frozen=True, vault_id=owner.vault_id, sequence=1), now=now
        )
        marks.choose_freshness(session, owner.vault_id, Freshness.DAY)  # a freeze forbids to use rows, not to say when
        with pytest.raises(UnknownVault):
            marks.choose_freshness(session, VaultId(bytes(16)), Freshness.DAY)
    with database.snapshot() as session:
        found = [people.get(session, one.vault_id) for one in (owner, other)]
        assert len(leaves(session)) == before + 1  # the freeze's
    assert [one.freshness for one in found] == [Freshness.DAY, Freshness.MONTH]
    assert [one.state for one in found] == [VaultState.FROZEN, VaultState.ACTIVE]


def test_forgetting_leaves_nothing_but_leaves(database: Database, now: datetime) -> None:
    owner, other = Owner(now), Owner(now)
    _create(database, owner, now)
    _create(database, other, now)
    with database.transaction() as session:
        people.forget(session, owner.vault_id)
    with database.snapshot() as session:
        with pytest.raises(UnknownVault):
            people.get(session, owner.vault_id)
        assert people.records(session, owner.vault_id) == []
        assert [personal is None for _, _, personal in leaves(session)] == [True, False]


def test_a_freeze_waits_for_the_answer_before_it_and_stops_the_one_after(
    postgresql_database: Database, now: datetime
) -> None:
    owner = Owner(now)
    _create(postgresql_database, owner, now)
    with postgresql_database.transaction() as session:
        session.execute(sqlalchemy.text("CREATE TABLE ask (id int, vault bytea)"))
        session.execute(sqlalchemy.text("INSERT INTO ask VALUES (1, :id)"), {"id": owner.vault_id})
    ask = sqlalchemy.table("ask", sqlalchemy.column("id"), sqlalchemy.column("vault"))
    answer = sqlalchemy.update(ask).values(id=ask.c.id + 1).where(people.not_frozen(ask.c.vault)).returning(ask.c.id)
    freeze = sign_freeze(owner.key, frozen=True, vault_id=owner.vault_id, sequence=1)
    changed: list[int] = []

    def answer_now() -> None:
        with postgresql_database.transaction() as session:
            changed.append(len(session.execute(answer).all()))

    asking = threading.Thread(target=answer_now)
    with postgresql_database.transaction() as session:
        people.follow_freeze(session, owner.vault_id, freeze, now=now)
        asking.start()
        wait_until_blocked(postgresql_database, lambda: not asking.is_alive())
        assert asking.is_alive(), "the answer must wait for the freeze"
    asking.join()
    assert changed == [0]
