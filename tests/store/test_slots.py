from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.vault_kit import NOW, Owner, begin, wait_until_blocked
from vault.db import Database
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.ids import VaultId
from vault.seal.signing import new_seed
from vault.seal.slot import new_device_secret, open_slot, parse_slot, recovery_key, seal_slot
from vault.store import accounts, slots
from vault.store.errors import AlreadyStored, VersionConflict

VAULT, OTHER = VaultId(b"a" * 16), VaultId(b"b" * 16)


def test_a_slot_is_found_by_its_locator_hash_and_opens(database: Database) -> None:
    assert len(new_device_secret()) == 16
    root, key = new_seed(), recovery_key(new_seed())
    with database.transaction() as session:
        slots.put(session, VAULT, seal_slot(root, key))
    with database.snapshot() as session:
        found = slots.find(session, key.slot_id)
        assert slots.find(session, bytes(32)) is None
    assert found is not None
    assert found[0] == VAULT
    assert open_slot(parse_slot(found[1]), key) == root


def test_a_slot_is_replaced_and_deleted_by_its_own_vault_only(database: Database) -> None:
    key = recovery_key(new_seed())
    first, second = seal_slot(new_seed(), key), seal_slot(new_seed(), key)
    with database.transaction() as session:
        slots.put(session, VAULT, first)
        slots.put(session, VAULT, second)
        with pytest.raises(AlreadyStored):
            slots.put(session, OTHER, first)
        slots.remove(session, OTHER, key.slot_id)
        assert slots.find(session, key.slot_id) == (VAULT, second.encoded)
        slots.remove(session, VAULT, key.slot_id)
        assert slots.find(session, key.slot_id) is None


def test_a_vault_has_at_most_16_slots(database: Database) -> None:
    with database.transaction() as session:
        made = [seal_slot(new_seed(), recovery_key(new_seed())) for _ in range(17)]
        for slot in made[:16]:
            slots.put(session, VAULT, slot)
        with pytest.raises(slots.TooManySlots):
            slots.put(session, VAULT, made[16])
        slots.put(session, VAULT, made[0])
        slots.put(session, OTHER, made[16])
        slots.forget(session, VAULT)
        assert [slots.find(session, slot.slot_id) is None for slot in made] == [True] * 16 + [False]


def test_two_slots_at_once_are_not_both_the_sixteenth(postgresql_database: Database, shortkeys: Database) -> None:
    database = postgresql_database
    owner, _ = begin(database, shortkeys)
    made = [seal_slot(new_seed(), recovery_key(new_seed())) for _ in range(slots.MAX_SLOTS + 1)]
    with database.transaction() as session:
        for slot in made[:-2]:
            slots.put(session, owner.vault, slot)

    def put_last() -> None:
        with database.transaction() as session:
            slots.put(session, owner.vault, made[-1])

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            slots.put(session, owner.vault, made[-2])
            late = pool.submit(put_last)
            wait_until_blocked(database, late.done)
        with pytest.raises(slots.TooManySlots):
            late.result()


def test_account_records_are_compared_and_swapped(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    with database.snapshot() as session:
        first = accounts.find(session, owner.vault)
    assert first is not None
    second = owner.account(2, parse_envelope(first).digest)
    with database.transaction() as session:
        accounts.publish(session, owner.vault, owner.key.public_key, second, now=NOW)
        accounts.publish(session, owner.vault, owner.key.public_key, second, now=NOW)
    for stale in (
        parse_envelope(first),
        owner.account(2, parse_envelope(first).digest),
        owner.account(4, second.digest),
    ):
        with database.transaction() as session, pytest.raises(VersionConflict):
            accounts.publish(session, owner.vault, owner.key.public_key, stale, now=NOW)
    with database.transaction() as session, pytest.raises(SealError):
        accounts.publish(session, owner.vault, Owner().key.public_key, owner.account(3, second.digest), now=NOW)
    with database.snapshot() as session:
        assert accounts.find(session, owner.vault) == second.encoded
