"""The next owner key takes the place of one that may be stolen, with all that the former one opened, or nothing changes."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from tests.leaves import leaves
from tests.succession_kit import Successor, owner_keys, succeed
from tests.vault_kit import NOW, Owner, begin, wait_until_blocked
from vault.db import Database
from vault.encoding import b64u
from vault.errors import VaultError
from vault.parties import people, succession
from vault.parties.sessions import NotSignedIn, SignInDesk, SignInRefused, find_caller
from vault.parties.succession import MAX_FORMER_KEYS, SuccessionRefused, TooManySuccessions
from vault.seal.dsse import Envelope
from vault.seal.errors import SealError
from vault.seal.ids import VaultId, new_id
from vault.seal.person import Role, SignIn, sign_freeze, sign_sign_in
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import recovery_key, seal_slot
from vault.store import accounts, devices, slots
from vault.store.errors import VersionConflict
from vault.tlog.log import PendingId

ORIGIN = "https://vault.example"
DESK = SignInDesk(ORIGIN, bytes(32), devices.live_key)


@pytest.fixture
def new(database: Database, shortkeys: Database) -> Successor:
    owner, _ = begin(database, shortkeys)
    return Successor.of(owner)


def answer(owner: Owner, key: SigningKey, role: Role = Role.OWNER) -> Envelope:
    return sign_sign_in(key, SignIn(owner.vault, role, None, DESK.challenge(owner.vault, role, now=NOW), ORIGIN))


def sign_in(database: Database, owner: Owner, key: SigningKey) -> str:
    with database.transaction() as session:
        return DESK.sign_in(session, answer(owner, key), now=NOW)


def test_only_the_key_committed_to_succeeds_and_only_once(database: Database, new: Successor) -> None:
    owner, thief = new.owner, SigningKey(new_seed())
    for forged in (
        new.sign(owner.key),
        new.sign(thief),
        new.sign(SigningKey(new.next_seed)),
        new.sign(vault_id=VaultId(new_id())),
        new.sign(prev=new_id() * 2),
        owner.genesis,
        Envelope(new.sign().payload_type, new.sign().payload, new.sign(thief).signatures),
    ):
        with pytest.raises(SuccessionRefused):
            succeed(database, new, replace(new.replacement(), succession=forged))
    assert owner_keys(database, owner.vault) == (owner.key.public_key,)
    first = new.replacement()
    succeed(database, new, first)
    assert owner_keys(database, owner.vault) == (owner.key.public_key, new.key.public_key)
    for again in (first.succession, new.sign(prev=first.succession.digest)):
        with pytest.raises(SuccessionRefused):
            succeed(database, new, replace(first, succession=again))
    old_key = sign_freeze(owner.key, frozen=True, vault_id=owner.vault, sequence=1)
    with pytest.raises(SealError), database.transaction() as session:
        people.follow_freeze(session, owner.vault, old_key, now=NOW)
    second = new.then(first.account)
    succeed(database, second)
    assert owner_keys(database, owner.vault) == (owner.key.public_key, new.key.public_key, second.key.public_key)
    with database.snapshot() as session:
        kept = succession.identity(session, owner.vault)
        logged = [personal for kind, _, personal in leaves(session) if kind == "succession"]
    assert kept == [one.encoded for one in (owner.genesis, first.succession, second.sign())]
    assert [one["record"] for one in logged] == [b64u(one.digest) for one in (first.succession, second.sign())]


def test_nobody_learns_from_a_refused_succession_whether_there_is_a_vault(database: Database, new: Successor) -> None:
    with database.transaction() as session:
        with pytest.raises(SuccessionRefused) as here:
            succession.succeed(
                session, new.owner.vault, replace(new.replacement(), succession=new.sign(new.owner.key)), now=NOW
            )
        with pytest.raises(SuccessionRefused) as nowhere:
            succession.succeed(session, VaultId(new_id()), new.replacement(), now=NOW)
    assert here.value.detail == nowhere.value.detail


def test_with_the_key_goes_everything_that_opened_the_vault(database: Database, new: Successor) -> None:
    vault = new.owner.vault
    old = seal_slot(new.owner.root, recovery_key(new_seed()))
    with database.transaction() as session:
        slots.put(session, vault, old)
    replacement = new.replacement()
    succeed(database, new, replacement)
    with database.snapshot() as session:
        assert slots.find(session, old.slot_id) is None
        assert slots.every(session, vault) == [replacement.slots[0].encoded]
        assert accounts.find(session, vault) == replacement.account.encoded


def test_a_succession_changes_all_of_it_or_nothing(database: Database, new: Successor) -> None:
    owner, good = new.owner, new.replacement()
    stranger_slot = seal_slot(owner.root, recovery_key(new_seed()))
    with database.transaction() as session:  # another vault's locator
        people.create(session, (other := Owner()).genesis, now=NOW)
        slots.put(session, other.vault, stranger_slot)
    refused: list[tuple[type[VaultError], dict[str, object]]] = [
        (SealError, {"account": new.account(owner.seeds.signing)}),
        (SealError, {"account": new.account(vault=VaultId(new_id()))}),
        (VersionConflict, {"account": new.account(version=1, prev=bytes(32))}),
        (VersionConflict, {"account": new.account(prev=new_id() * 2)}),
        (VaultError, {"slots": (stranger_slot,)}),
    ]
    for error, forged in refused:
        with pytest.raises(error):
            succeed(database, new, replace(good, **forged))  # type: ignore[arg-type]  # forging is the point
        with database.snapshot() as session:
            assert owner_keys(database, owner.vault) == (owner.key.public_key,)
            assert accounts.find(session, owner.vault) == owner.account_record.encoded
    succeed(database, new, good)


def test_a_succession_ends_every_session_and_the_old_key(database: Database, new: Successor) -> None:
    owner = new.owner
    token = sign_in(database, owner, owner.key)
    succeed(database, new)
    with database.snapshot() as session, pytest.raises(NotSignedIn):
        find_caller(session, token, now=NOW)
    with pytest.raises(SignInRefused):
        sign_in(database, owner, owner.key)
    sign_in(database, owner, new.key)


@pytest.mark.parametrize("role", [Role.OWNER, Role.WATCHER])
def test_no_session_of_the_old_key_begins_while_it_is_replaced(
    postgresql_database: Database, shortkeys: Database, role: Role
) -> None:
    """The sign-in read the old key before the succession committed: it must not open a session that outlives it."""
    database = postgresql_database
    owner, _ = begin(database, shortkeys)
    new = Successor.of(owner)
    signed, refused = answer(owner, owner.key, role), []

    def thief() -> None:
        with database.transaction() as session:
            try:
                DESK.sign_in(session, signed, now=NOW)
            except SignInRefused as refusal:
                refused.append(refusal)

    with database.transaction() as session:
        succession.succeed(session, owner.vault, new.replacement(), now=NOW)
        thread = threading.Thread(target=thief)
        thread.start()
        wait_until_blocked(database, lambda: not thread.is_alive())
    thread.join()
    assert len(refused) == 1


def test_what_the_journal_keeps_brings_key_account_and_slots_back(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    new = Successor.of(owner)
    first = new.replacement()
    later = replace(new.then(first.account), code=new_seed())
    second = later.replacement()
    with database.transaction() as session:
        slots.put(session, owner.vault, seal_slot(owner.root, recovery_key(new_seed())))
        token = DESK.sign_in(session, answer(owner, owner.key), now=NOW)
        assert not succession.repeat(session, second.dump(), now=NOW)  # the one between is missing
        assert succession.repeat(session, first.dump(), now=NOW)
        assert succession.repeat(session, second.dump(), now=NOW)
        for known in (first, second):
            assert not succession.repeat(session, known.dump(), now=NOW)
        assert slots.every(session, owner.vault) == [second.slots[0].encoded]
        assert accounts.find(session, owner.vault) == second.account.encoded
        with pytest.raises(NotSignedIn):
            find_caller(session, token, now=NOW)
        other = Successor.of(Owner())
        assert not succession.repeat(session, other.replacement().dump(), now=NOW)  # began after the backup
    assert owner_keys(database, owner.vault)[-1] == later.key.public_key


def test_two_that_the_journal_takes_at_once_come_back_both(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    new = Successor.of(owner)
    first = new.replacement()
    second = new.then(first.account)
    succeed(database, new, first)
    succeed(database, second)
    with database.transaction() as session:
        named = people.envelopes(session, map(PendingId, range(1, 20)))
        leaves_of = {envelope: leaf for leaf, envelope in named.items()}
        wanted = [leaves_of[one.encoded] for one in (first.succession, second.sign())]
        kept = succession.journaled(session, wanted)
        people.forget(session, owner.vault)
        people.create(session, owner.genesis, now=NOW)
        assert [succession.repeat(session, kept[leaf], now=NOW) for leaf in wanted] == [True, True]
    assert owner_keys(database, owner.vault)[1:] == (new.key.public_key, second.key.public_key)


def test_the_account_record_comes_back_over_versions_that_are_lost(database: Database, new: Successor) -> None:
    lost = replace(new, account_version=4, account_prev=new_id() * 2)
    kept = lost.replacement()
    with database.transaction() as session:
        assert succession.repeat(session, kept.dump(), now=NOW)
        assert accounts.find(session, new.owner.vault) == kept.account.encoded


def test_who_has_a_locator_in_the_backup_does_not_hold_up_a_restore(database: Database, new: Successor) -> None:
    kept = new.replacement()
    with database.transaction() as session:
        people.create(session, (other := Owner()).genesis, now=NOW)
        slots.put(session, other.vault, kept.slots[0])
        assert succession.repeat(session, kept.dump(), now=NOW)
        assert slots.every(session, new.owner.vault) == []
    assert owner_keys(database, new.owner.vault)[-1] == new.key.public_key


def test_an_account_record_of_the_former_key_does_not_come_back(database: Database, new: Successor) -> None:
    forged = replace(new.replacement(), account=new.account(new.owner.seeds.signing))
    with pytest.raises(SealError), database.transaction() as session:
        succession.repeat(session, forged.dump(), now=NOW)
    assert owner_keys(database, new.owner.vault) == (new.owner.key.public_key,)


def test_an_owner_key_is_replaced_so_often_and_no_more(database: Database, new: Successor) -> None:
    first = new.replacement()
    vault = new.owner.vault
    with database.transaction() as session:
        row = people.locked(session, vault)
        row.former_owner_keys = bytes(32 * (MAX_FORMER_KEYS - 1))
        session.add(row)
    succeed(database, new, first)
    with pytest.raises(TooManySuccessions):
        succeed(database, new.then(first.account))
    assert len(owner_keys(database, vault)) == MAX_FORMER_KEYS + 1


def test_what_an_owner_ordered_is_no_part_of_the_identity(database: Database, new: Successor) -> None:
    owner = new.owner
    with database.transaction() as session:
        for sequence in (1, 2):
            order = sign_freeze(owner.key, frozen=sequence == 1, vault_id=owner.vault, sequence=sequence)
            people.follow_freeze(session, owner.vault, order, now=NOW)
        assert succession.find(session, owner.vault, order) is None
        assert succession.identity(session, owner.vault) == [owner.genesis.encoded]


def test_a_damaged_one_is_refused(sqlite_database: Database) -> None:
    new = Successor.of(Owner())
    whole = new.replacement().dump()
    with sqlite_database.transaction() as session:
        for damaged in (b"", whole[:-1], whole + b"\0"):
            with pytest.raises(SealError):
                succession.repeat(session, damaged, now=NOW)
