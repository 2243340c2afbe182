from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.vault_kit import NOW, PURCHASE, Owner, Source, begin, publish
from vault.db import Database
from vault.errors import VaultError
from vault.ingest.accept import BrokenChain, ClosedEpoch, StaleHeadList, UnknownCompartment, UnknownDevice, accept
from vault.parties.caller import DeviceCaller
from vault.schema.category import Category
from vault.seal.batch import parse_batch
from vault.seal.blob import sign_blob
from vault.seal.device import ChainHead, Device
from vault.seal.dsse import PayloadType
from vault.seal.errors import SealError
from vault.seal.framing import frames
from vault.seal.ids import CompartmentId, sha256
from vault.seal.signing import SigningKey, new_seed
from vault.seal.upload import MAX_BATCHES, MAX_UPLOAD_BYTES, Acknowledgement, encode_upload, parse_upload
from vault.store import batches, rings

LOCATION = Category("pd:Location")


def send(database: Database, caller: DeviceCaller, body: bytes) -> Acknowledgement:
    parsed = parse_upload(body)
    with database.transaction() as session:
        return accept(session, caller, parsed, now=NOW)


def stored(database: Database, owner: Owner) -> list[bytes]:
    with database.snapshot() as session:
        return [b.encoded for b in batches.read(session, owner.vault, owner.compartment().id)]


def counts(database: Database) -> tuple[int, ...]:
    with database.snapshot() as session:
        return tuple(
            session.connection().execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("batch", "head_list", "log_entry", "log_opening")
        )


def test_an_upload_is_stored_logged_and_acknowledged(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    before = counts(database)
    body = source.upload(owner.compartment(), count=3)
    acknowledgement = send(database, source.caller, body)
    assert acknowledgement.heads == source.heads
    assert acknowledgement.upload == sha256(body)
    assert stored(database, owner) == [batch.encoded for batch in parse_upload(body).batches]
    assert counts(database) == (3, 1, before[2] + 1, before[3] + 1)
    with database.snapshot() as session:
        heads = batches.device_heads(session, owner.vault, source.device.id)
        assert (heads.version, heads.heads) == (1, source.heads)
        assert batches.head_lists(session, owner.vault) == {source.device.id: parse_upload(body).head_list.encoded}
        name, none = owner.compartment().id, CompartmentId(bytes(16))
        assert batches.digests(session, owner.vault, [name, none]) == {
            name: [sha256(data) for data in stored(database, owner)],
            none: [],
        }


def test_two_devices_and_two_compartments_have_chains_of_their_own(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys, [PURCHASE, LOCATION])
    other = owner.source()
    publish(database, shortkeys, owner, owner.sign())
    for sender in (source, other, source):
        first = sender.seal(owner.compartment(PURCHASE))
        second = sender.seal(owner.compartment(LOCATION))
        assert send(database, sender.caller, encode_upload([first, second], sender.head_list())).heads == sender.heads
    assert {head.seq for head in source.heads.values()} == {2}
    assert {head.seq for head in other.heads.values()} == {1}
    assert len(stored(database, owner)) == 3


def test_the_same_upload_again_is_acknowledged_and_changes_nothing(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    body = source.upload(owner.compartment(), count=2)
    first = send(database, source.caller, body)
    before = counts(database)
    assert send(database, source.caller, body) == first
    assert counts(database) == before
    send(database, source.caller, source.upload(owner.compartment()))
    assert send(database, source.caller, body).heads == source.heads


def test_a_lost_answer_is_made_good_by_a_longer_upload(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    first = source.seal(owner.compartment())
    send(database, source.caller, encode_upload([first], source.head_list()))
    second = source.seal(owner.compartment())
    send(database, source.caller, encode_upload([first, second], source.head_list()))
    assert stored(database, owner) == [first, second]


def _dropped(source: Source, owner: Owner) -> bytes:
    source.seal(owner.compartment())
    return source.upload(owner.compartment())


def _reordered(source: Source, owner: Owner) -> bytes:
    one, two = source.seal(owner.compartment()), source.seal(owner.compartment())
    return encode_upload([two, one], source.head_list())


def _forked(source: Source, owner: Owner) -> bytes:
    source.heads = {}
    return source.upload(owner.compartment(), text="another first batch")


def _twice(source: Source, owner: Owner) -> bytes:
    one = source.seal(owner.compartment())
    return encode_upload([one, one], source.head_list())


def _forked_later(source: Source, owner: Owner) -> bytes:
    source.heads[owner.compartment().id] = ChainHead(1, bytes(32))
    return source.upload(owner.compartment())


@pytest.mark.parametrize("attack", [_dropped, _reordered, _forked, _twice, _forked_later])
def test_broken_chains_are_refused_and_leave_no_trace(
    database: Database, shortkeys: Database, attack: Callable[[Source, Owner], bytes]
) -> None:
    owner, source = begin(database, shortkeys)
    send(database, source.caller, source.upload(owner.compartment()))
    before = counts(database)
    body = attack(source, owner)
    with pytest.raises(BrokenChain, match="number"):
        send(database, source.caller, body)
    assert counts(database) == before


def test_the_sentence_says_which_number_is_expected(sqlite_database: Database, shortkeys: Database) -> None:
    owner, source = begin(sqlite_database, shortkeys)
    send(sqlite_database, source.caller, source.upload(owner.compartment(), count=4))
    with pytest.raises(BrokenChain, match="number 5 after"):
        send(sqlite_database, source.caller, _dropped(source, owner))


def test_one_bad_batch_refuses_the_whole_upload(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    good, bad = source.seal(owner.compartment()), bytearray(source.seal(owner.compartment()))
    bad[-100] ^= 1
    source.heads[owner.compartment().id] = parse_batch(bytes(bad)).head
    before = counts(database)
    with pytest.raises(SealError, match="signature"):
        send(database, source.caller, encode_upload([good, bytes(bad)], source.head_list()))
    assert counts(database) == before


def test_another_vaults_batch_is_refused(sqlite_database: Database, shortkeys: Database) -> None:
    owner, source = begin(sqlite_database, shortkeys)
    victim, _ = begin(sqlite_database, shortkeys)
    with pytest.raises(UnknownCompartment):
        send(sqlite_database, source.caller, source.upload(victim.compartment()))
    with pytest.raises(UnknownDevice):
        send(sqlite_database, DeviceCaller(victim.vault, source.device.id), source.upload(owner.compartment()))
    moved = Source(victim.vault, source.key)
    with pytest.raises(SealError, match="another vault"):
        send(sqlite_database, source.caller, moved.upload(owner.compartment()))


def test_a_batch_under_another_key_than_the_rings_is_refused(sqlite_database: Database, shortkeys: Database) -> None:
    owner, source = begin(sqlite_database, shortkeys)
    other = Owner()
    other.extend()
    swapped = replace(owner.compartment(), public=other.compartment().public)
    with pytest.raises(SealError, match="compartment key"):
        send(sqlite_database, source.caller, source.upload(swapped))


def test_another_devices_batch_signed_again_is_refused(sqlite_database: Database, shortkeys: Database) -> None:
    owner, source = begin(sqlite_database, shortkeys)
    thief = owner.source()
    publish(sqlite_database, shortkeys, owner, owner.sign())
    stolen = parse_batch(source.seal(owner.compartment()))
    again = sign_blob(PayloadType.BATCH, stolen.blob.header, stolen.blob.ciphertext, thief.key).encoded
    thief.heads[owner.compartment().id] = parse_batch(again).head
    with pytest.raises(SealError, match="another device"):
        send(sqlite_database, thief.caller, encode_upload([again], thief.head_list()))
    with pytest.raises(SealError):
        send(sqlite_database, thief.caller, encode_upload([stolen.encoded], thief.head_list()))


@pytest.mark.parametrize("forgery", ["missing", "other-digest", "extra", "other-signer", "other-vault"])
def test_forged_head_lists_are_refused(sqlite_database: Database, shortkeys: Database, forgery: str) -> None:
    owner, source = begin(sqlite_database, shortkeys)
    sealed = source.seal(owner.compartment())
    name = owner.compartment().id
    match forgery:
        case "missing":
            heads = source.head_list(heads={})
        case "other-digest":
            heads = source.head_list(heads={name: ChainHead(1, bytes(32))})
        case "extra":
            heads = source.head_list(heads={**source.heads, b"x" * 16: ChainHead(1, bytes(32))})
        case "other-vault":
            heads = source.head_list(vault=Owner().vault)
        case _:
            heads = Source(source.vault, SigningKey(new_seed()), heads=source.heads).head_list()
    before = counts(sqlite_database)
    with pytest.raises(SealError):
        send(sqlite_database, source.caller, encode_upload([sealed], heads))
    assert counts(sqlite_database) == before


def test_an_older_head_list_is_refused(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    send(database, source.caller, source.upload(owner.compartment()))
    source.version = 0
    with pytest.raises(StaleHeadList):
        send(database, source.caller, source.upload(owner.compartment()))


def test_unlisted_and_revoked_devices_are_refused(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    body = source.upload(owner.compartment())
    send(database, source.caller, body)
    stranger = Source(owner.vault)
    with pytest.raises(UnknownDevice):
        send(database, stranger.caller, stranger.upload(owner.compartment()))
    owner.devices[source.device.id] = Device(source.key.public_key, source.device.role, dict(source.heads))
    publish(database, shortkeys, owner, owner.sign())
    for late in (source.upload(owner.compartment()), body):
        with pytest.raises(UnknownDevice):
            send(database, source.caller, late)


def test_a_closed_epoch_takes_no_batch(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    old = owner.compartment()
    page = owner.extend()
    publish(database, shortkeys, owner, owner.sign(), [page])
    with pytest.raises(ClosedEpoch):
        send(database, source.caller, source.upload(old))
    source.heads = {}
    send(database, source.caller, source.upload(owner.compartment()))


def test_an_erased_compartment_takes_no_batch(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    send(database, source.caller, source.upload(owner.compartment()))
    with database.transaction() as session:
        rings.forget(session, owner.vault, [owner.compartment().id])
    assert stored(database, owner) == []
    with pytest.raises(ClosedEpoch):
        send(database, source.caller, source.upload(owner.compartment()))


def test_erasing_deletes_the_openings_of_uploads_that_nothing_is_left_of(
    database: Database, shortkeys: Database
) -> None:
    owner, source = begin(database, shortkeys, [PURCHASE, LOCATION])
    both = [source.seal(owner.compartment(PURCHASE)), source.seal(owner.compartment(LOCATION))]
    send(database, source.caller, encode_upload(both, source.head_list()))
    send(database, source.caller, source.upload(owner.compartment(PURCHASE)))
    open_uploads = text(
        "SELECT count(*) FROM log_opening JOIN log_entry ON id = entry_id "
        "WHERE kind = 'upload' AND personal_body IS NOT NULL"
    )
    for erased, left in ((PURCHASE, 1), (LOCATION, 0)):
        with database.transaction() as session:
            rings.forget(session, owner.vault, [owner.compartment(erased).id])
            assert session.connection().execute(open_uploads).scalar_one() == left


def test_reading_back_goes_in_pages(database: Database, shortkeys: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, source = begin(database, shortkeys)
    send(database, source.caller, source.upload(owner.compartment(), count=5))
    whole = stored(database, owner)
    monkeypatch.setattr(batches, "_PAGE_BYTES", len(whole[0]) + len(whole[1]))
    seen: list[bytes] = []
    cursor = 0
    with database.snapshot() as session:
        while page := batches.read(session, owner.vault, owner.compartment().id, after=cursor):
            assert len(page) <= 2
            seen += [batch.encoded for batch in page]
            cursor = page[-1].id
        monkeypatch.setattr(batches, "_PAGE_BYTES", 1)
        assert len(batches.read(session, owner.vault, owner.compartment().id)) == 1
        assert batches.read(session, Owner().vault, owner.compartment().id) == []
    assert seen == whole


def test_oversize_and_empty_uploads_are_refused(sqlite_database: Database, shortkeys: Database) -> None:
    owner, source = begin(sqlite_database, shortkeys)
    sealed, heads = source.seal(owner.compartment()), source.head_list()
    for body in (
        b"",
        encode_upload([], heads),
        encode_upload([sealed] * (MAX_BATCHES + 1), heads),
        encode_upload([bytes(MAX_UPLOAD_BYTES)], heads),
        encode_upload([frames(b"{}", bytes(17 << 20)) + bytes(64)], heads),
    ):
        with pytest.raises(SealError):
            send(sqlite_database, source.caller, body)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_malformed_uploads_raise_one_family_and_store_nothing(
    sqlite_database: Database, shortkeys: Database, data: st.DataObject
) -> None:
    if not hasattr(sqlite_database, "made"):
        owner, source = begin(sqlite_database, shortkeys)
        sqlite_database.made = (source, source.upload(owner.compartment(), count=2))  # type: ignore[attr-defined]
    source, body = sqlite_database.made  # type: ignore[attr-defined]
    kind = data.draw(st.sampled_from(["bytes", "flip", "cut", "insert"]))
    at = data.draw(st.integers(0, len(body) - 1))
    match kind:
        case "bytes":
            changed = data.draw(st.binary(max_size=300))
        case "flip":
            changed = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
        case "cut":
            changed = body[:at]
        case _:
            changed = body[:at] + data.draw(st.binary(min_size=1, max_size=9)) + body[at:]
    before = counts(sqlite_database)
    with pytest.raises(VaultError) as caught:
        send(sqlite_database, source.caller, changed)
    assert 400 <= caught.value.status < 500
    assert counts(sqlite_database) == before
