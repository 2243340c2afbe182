from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.seal.world import drop_compartments
from tests.vault_kit import MONTH, NOW, PURCHASE, Owner, begin, publish
from vault.db import Database
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.seal.device import Device
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.ids import key_id
from vault.seal.ring import Page, new_compartment, open_seed, sign_page, verify_ring
from vault.seal.signing import SigningKey, new_seed
from vault.store import devices, places, rings
from vault.store import shortkeys as keys
from vault.store.errors import BadRing, NotStored, VersionConflict

LOCATION = Category("pd:Location")
DECEMBER = Period("2026-12")


def read(database: Database, shortkeys: Database | None, owner: Owner) -> rings.StoredRing:
    with database.snapshot() as session:
        return rings.read(session, owner.vault, short_key_database=shortkeys)


def test_a_published_ring_comes_back_and_opens(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    stored = read(database, shortkeys, owner)
    pages = [parse_envelope(page) for page, _ in stored.pages]
    ring = verify_ring(parse_envelope(stored.head), pages, owner.key.public_key, owner.vault)
    locked = stored.pages[0][1]
    for name, compartment in ring.compartments.items():
        assert len(open_seed(owner.vault, compartment, owner.root, locked[name])) == 32
    assert source.device.id in ring.head.devices


def test_locked_seeds_lie_under_short_keys_only(sqlite_database: Database, shortkeys: Database) -> None:
    owner, _ = begin(sqlite_database, shortkeys)
    with sqlite_database.snapshot() as session:
        blobs = session.connection().execute(text("SELECT locked FROM compartment")).scalars().all()
    for seed in owner.locked.values():
        assert all(seed not in blob for blob in blobs)
    assert [dict(locked) for _, locked in read(sqlite_database, None, owner).pages] == [{}]


def test_look_ups(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys, [PURCHASE, LOCATION])
    page = owner.extend([PURCHASE])
    publish(database, shortkeys, owner, owner.sign(), [page])
    newest = owner.compartment()
    with database.snapshot() as session:
        assert rings.newest(session, owner.vault, PURCHASE, MONTH) == newest
        assert rings.newest(session, owner.vault, PURCHASE, DECEMBER) is None
        found = rings.compartments(session, owner.vault, owner.locked)
        assert found == owner.pages[MONTH][0].compartments
        asked = places.find(session, owner.vault, owner.locked)
        assert {name for name, place in asked.items() if not place.is_open} == {
            c.id for c in found.values() if c.category == PURCHASE and c.epoch == 1
        }
        assert devices.find(session, owner.vault, source.device.id) == source.device
        assert devices.live_key(session, owner.vault, source.device.id) == source.key.public_key
        other = Owner()
        assert devices.find(session, other.vault, source.device.id) is None
        assert rings.compartments(session, other.vault, owner.locked) == {}
        with pytest.raises(NotStored):
            rings.read(session, other.vault)


def test_a_ring_rolled_back_or_forked_is_refused(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    first = owner.head
    second = owner.sign()
    publish(database, shortkeys, owner, second)
    assert first is not None
    with pytest.raises(VersionConflict):
        publish(database, shortkeys, owner, first)
    owner.head, owner.version = first, 1
    fork = owner.sign(issued_at_s=5)
    with pytest.raises(VersionConflict):
        publish(database, shortkeys, owner, fork)
    assert read(database, None, owner).head == second.encoded


def test_a_page_rolled_back_under_a_new_head_is_refused(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    old_page = owner.pages[MONTH]
    page = owner.extend()
    publish(database, shortkeys, owner, owner.sign(), [page])
    newer = owner.pages[MONTH]
    owner.pages[MONTH] = old_page
    with pytest.raises(VersionConflict):
        publish(database, shortkeys, owner, owner.sign(), [old_page[1]])
    owner.head, owner.version, owner.pages[MONTH] = parse_envelope(read(database, None, owner).head), 2, newer
    publish(database, shortkeys, owner, owner.sign())


def test_publishing_the_stored_head_again_changes_nothing(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    assert owner.head is not None
    with database.snapshot() as session:
        before = session.connection().execute(text("SELECT count(*) FROM log_entry")).scalar_one()
    publish(database, shortkeys, owner, owner.head, [envelope for _, envelope in owner.pages.values()])
    with database.snapshot() as session:
        assert session.connection().execute(text("SELECT count(*) FROM log_entry")).scalar_one() == before


@pytest.mark.parametrize("forgery", ["other-owner", "page-missing", "page-extra", "locked-missing", "locked-swapped"])
def test_forged_publishes_are_refused(sqlite_database: Database, shortkeys: Database, forgery: str) -> None:
    owner, _ = begin(sqlite_database, shortkeys)
    page = owner.extend([LOCATION])
    pages, locked = [page], dict(owner.locked)
    if forgery == "other-owner":
        owner.__dict__["key"] = SigningKey(new_seed())
        head = owner.sign()
        with pytest.raises(SealError):
            rings.verify_publish(
                owner.vault, SigningKey(owner.seeds.signing).public_key, head, pages, locked_seeds={},
                short_key_database=shortkeys,
            )  # fmt: skip
        return
    if forgery == "page-missing":
        head, pages, locked = owner.sign(), [], {}
    elif forgery == "page-extra":
        digests = {MONTH: bytes(32)}
        head = owner.sign(pages=digests)
    elif forgery == "locked-missing":
        head, locked = owner.sign(), {}
    else:
        head = owner.sign()
        names = list(owner.pages[MONTH][0].compartments)
        locked = {names[0]: owner.locked[names[1]]}
    with pytest.raises((BadRing, SealError)):
        publish(sqlite_database, shortkeys, owner, head, pages, locked)
    assert len(read(sqlite_database, shortkeys, owner).pages[0][1]) == 1


def test_what_a_compartment_is_never_changes(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    page, envelope = owner.pages[MONTH]
    (name, compartment), other = next(iter(page.compartments.items())), Owner()
    other.extend()
    swapped = replace(compartment, public=other.compartment().public)
    forged = owner.sign_page(replace(page, version=2, prev=envelope.digest, compartments={name: swapped}))
    with pytest.raises(BadRing, match="keeps"):
        publish(database, shortkeys, owner, owner.sign(), [forged], {})


def test_an_epoch_never_goes_back(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    page, envelope = owner.pages[MONTH]
    high, locked = new_compartment(owner.vault, owner.root, PURCHASE, MONTH, 5)
    jumped = replace(page, version=2, prev=envelope.digest, compartments={**page.compartments, high.id: high})
    envelope = owner.sign_page(jumped)
    publish(database, shortkeys, owner, owner.sign(), [envelope], {high.id: locked})
    low, locked = new_compartment(owner.vault, owner.root, PURCHASE, MONTH, 3)
    back = replace(jumped, version=3, prev=envelope.digest, compartments={**jumped.compartments, low.id: low})
    envelope = owner.sign_page(back)
    with pytest.raises(BadRing, match="higher epoch"):
        publish(database, shortkeys, owner, owner.sign(), [envelope], {low.id: locked})


def test_a_compartment_id_is_used_in_one_month_only(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    same = owner.compartment()
    moved = Page(owner.vault, 1, bytes(32), DECEMBER, {same.id: replace(same, period=DECEMBER)})
    envelope = owner.sign_page(moved)
    with pytest.raises(BadRing, match="another month"):
        publish(database, shortkeys, owner, owner.sign(), [envelope])


def test_a_compartment_leaves_the_ring_only_after_its_erasure(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys, [PURCHASE, LOCATION])
    page, envelope = owner.pages[MONTH]
    gone = owner.compartment(LOCATION)
    dropped = owner.sign_page(drop_compartments(page, envelope.digest, [gone.id]))
    head = owner.sign()
    with pytest.raises(BadRing, match="erased"):
        publish(database, shortkeys, owner, head, [dropped])
    made = keys.read(shortkeys, [keys.compartment_key(owner.vault, gone.id)])
    assert len(made) == 1
    with database.transaction() as session:
        rings.forget(session, owner.vault, [gone.id])
    keys.delete_scheduled(database, shortkeys)
    assert keys.read(shortkeys, made) == {}
    with database.snapshot() as session:
        assert rings.newest(session, owner.vault, LOCATION, MONTH) is None
        assert not places.find(session, owner.vault, [gone.id])[gone.id].is_open
    assert gone.id not in read(database, shortkeys, owner).pages[0][1]
    publish(database, shortkeys, owner, head, [dropped])
    again = owner.extend([LOCATION])
    publish(database, shortkeys, owner, owner.sign(), [again])
    with database.snapshot() as session:
        assert rings.newest(session, owner.vault, LOCATION, MONTH) == owner.compartment(LOCATION)


def test_forgetting_a_vault_leaves_nothing_of_it(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    with database.transaction() as session:
        rings.forget(session, owner.vault)
    assert keys.delete_scheduled(database, shortkeys) == 1
    with database.snapshot() as session:
        for table in ("ring_head", "ring_page", "ring_device", "compartment", "batch", "head_list", "store_leaf"):
            assert session.connection().execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0, table
        kinds = (
            "SELECT count(*) FROM log_opening JOIN log_entry ON id = entry_id WHERE kind IN ('ring-head', 'account')"
        )
        assert session.connection().execute(text(kinds + " AND personal_body IS NOT NULL")).scalar_one() == 0
        assert session.connection().execute(text(kinds)).scalar_one() == 2


def test_a_revoked_device_has_no_key(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    revoked = Device(source.key.public_key, source.device.role, {})
    owner.devices[source.device.id] = revoked
    publish(database, shortkeys, owner, owner.sign())
    with database.snapshot() as session:
        assert devices.find(session, owner.vault, source.device.id) == revoked
        assert devices.live_key(session, owner.vault, source.device.id) is None


@pytest.mark.parametrize("back", ["in force", "not listed"])
def test_a_revoked_device_stays_revoked(database: Database, shortkeys: Database, back: str) -> None:
    """A client that was shown an older ring, such as a restored one, would let it in again without knowing."""
    owner, source = begin(database, shortkeys)
    revoked = Device(source.key.public_key, source.device.role, {})
    owner.devices[source.device.id] = revoked
    publish(database, shortkeys, owner, owner.sign())
    if back == "in force":
        owner.devices[source.device.id] = source.device
    else:
        del owner.devices[source.device.id]
    with pytest.raises(BadRing, match="stays listed and revoked"):
        publish(database, shortkeys, owner, owner.sign())
    with database.snapshot() as session:
        assert devices.find(session, owner.vault, source.device.id) == revoked


def test_of_racing_publishes_exactly_one_wins(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    start, outcomes = threading.Barrier(6), []
    prev = owner.head
    heads = []
    for issued_at_s in range(6):
        owner.head, owner.version = prev, 1
        heads.append(owner.sign(issued_at_s=issued_at_s))
    verified = [
        rings.verify_publish(
            owner.vault, owner.key.public_key, head, [], locked_seeds={}, short_key_database=shortkeys
        )
        for head in heads
    ]  # fmt: skip

    def race(new: rings.VerifiedRing) -> None:
        start.wait()
        try:
            with database.transaction() as session:
                rings.publish(session, owner.vault, new, now=NOW)
            outcomes.append(new.head.encoded)
        except VersionConflict:
            outcomes.append(None)

    threads = [threading.Thread(target=race, args=(new,)) for new in verified]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    winners = [outcome for outcome in outcomes if outcome is not None]
    assert len(outcomes) == 6
    assert winners == [read(database, None, owner).head]


def test_a_new_page_is_by_the_key_in_force_and_one_from_before_needs_the_heads_signature_only(
    sqlite_database: Database, shortkeys: Database
) -> None:
    owner, _ = begin(sqlite_database, shortkeys)
    former, owner.seeds = owner.key, replace(owner.seeds, signing=new_seed())
    del owner.__dict__["key"]
    publish(sqlite_database, shortkeys, owner, owner.sign())
    stored = read(sqlite_database, None, owner)
    pages = [parse_envelope(page) for page, _ in stored.pages]
    assert pages[0].signatures[0][0] == key_id(former.public_key)
    assert verify_ring(parse_envelope(stored.head), pages, owner.key.public_key, owner.vault).compartments
    page, _ = owner.pages[MONTH]
    forged = sign_page(replace(page, version=2, prev=owner.pages[MONTH][1].digest), former)
    owner.pages[MONTH] = page, forged
    with pytest.raises(SealError):
        publish(sqlite_database, shortkeys, owner, owner.sign(), [forged], {})
