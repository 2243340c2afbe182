"""Sealed batches are opened in a child that knows one vault, and count only if device, chain and columns hold."""

from __future__ import annotations

import pytest
import sqlalchemy
import zstandard

from tests.twin.worker_kit import OCTOBER, RETAIL, SEPTEMBER, TwinWorld, another_vault, purchase
from tests.vault_kit import PURCHASE
from vault.seal.batch import seal_batch
from vault.seal.columns import bucket_bytes
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, sha256
from vault.seal.signing import SigningKey, new_seed
from vault.twin.children import Children
from vault.twin.opening import VaultKeys, parse_reply
from vault.twin.refresh import Outcome, refresh

BREAD, MILK = RETAIL.codes[0], RETAIL.codes[1]


def corrupt(world: TwinWorld, change) -> None:
    """Store an altered batch, as whoever holds the database could."""
    with world.database.transaction() as session:
        connection = session.connection()
        row = connection.execute(sqlalchemy.text("SELECT id, batch FROM batch ORDER BY id DESC LIMIT 1")).one()
        altered = change(bytes(row.batch))
        connection.execute(
            sqlalchemy.text("UPDATE batch SET batch = :batch, digest = :digest WHERE id = :id"),
            {"batch": altered, "digest": sha256(altered), "id": row.id},
        )


def forged(world: TwinWorld, plaintext: bytes) -> bytes:
    """Seal bytes that are no columns with the device's own key: a compromised device can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vault.seal.batch.pack_traces", lambda traces: plaintext)
        return world.seal([purchase(BREAD)])


def bomb(_world: TwinWorld) -> bytes:
    """A small frame that would unpack to 64 MiB but says 1 KiB."""
    stored = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    packed = b"\x01" + len(stored).to_bytes(4, "big") + (1024).to_bytes(4, "big") + stored
    return packed.ljust(bucket_bytes(len(packed)), b"\0")


@pytest.mark.parametrize("plaintext", [bomb, lambda world: b"\x01" + bytes(255), lambda world: b"{}"])
def test_a_batch_that_does_not_unpack_fails_its_vault_only(
    lite: TwinWorld, shortkeys, children: Children, plaintext
) -> None:
    honest = another_vault(lite.database, shortkeys, lite)
    honest.buy(BREAD)
    lite.upload(forged(lite, plaintext(lite)))
    wanted = {world.owner.vault: ConsentId(world.keep_twin().consent_id) for world in (lite, honest)}
    outcomes = refresh(lite.worker(children), wanted)
    assert outcomes[lite.owner.vault] == Outcome(rows=0, reason="unreadable-batches", failed=True)
    assert outcomes[honest.owner.vault] == Outcome(rows=2, reason="", failed=False)
    assert lite.stored() == []


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[: len(data) // 2], lambda data: b""],
    ids=["signature", "truncated", "empty"],
)
def test_an_altered_batch_is_not_counted(lite: TwinWorld, children: Children, change) -> None:
    lite.buy(BREAD)
    corrupt(lite, change)
    assert lite.refresh(children, lite.keep_twin()).reason == "unreadable-batches"
    assert lite.stored() == []


def test_a_batch_of_a_device_that_only_the_database_lists_is_not_counted(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD)
    stranger = SigningKey(new_seed())
    compartment = lite.owner.compartment(PURCHASE, OCTOBER)
    corrupt(lite, lambda data: seal_batch([purchase(MILK)], lite.owner.vault, compartment, stranger, None))
    assert lite.refresh(children, lite.keep_twin()).reason == "unreadable-batches"


def test_a_dropped_batch_breaks_its_chain(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD)
    lite.buy(MILK)
    with lite.database.transaction() as session:
        session.connection().execute(sqlalchemy.text("DELETE FROM batch WHERE seq = 1"))
    assert lite.refresh(children, lite.keep_twin()).reason == "unreadable-batches"


def test_a_child_that_dies_fails_its_vault(
    lite: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    monkeypatch.setattr(VaultKeys, "dump", lambda self: b"\xff" * 64)  # no frame: not a refusal but a defect
    assert lite.refresh(children, version).failed
    monkeypatch.undo()
    assert lite.refresh(children, version).rows == 2


def test_a_child_is_sent_one_vaults_seeds(lite: TwinWorld, shortkeys, children: Children, monkeypatch) -> None:
    other = another_vault(lite.database, shortkeys, lite)
    sent: list[bytes] = []
    dump = VaultKeys.dump
    monkeypatch.setattr(VaultKeys, "dump", lambda keys: sent.append(dump(keys)) or sent[-1])
    for world in (lite, other):
        world.buy(BREAD)
    wanted = {world.owner.vault: ConsentId(world.keep_twin().consent_id) for world in (lite, other)}
    refresh(lite.worker(children), wanted)
    assert len(sent) == 2
    for mine, theirs in ((lite, other), (other, lite)):
        message = next(message for message in sent if mine.owner.vault in message)
        secret = [theirs.seed(c) for page, _ in theirs.owner.pages.values() for c in page.compartments.values()]
        assert not any(seed in message for seed in secret)
        closed = [mine.owner.compartment(PURCHASE, period) for period in (SEPTEMBER, OCTOBER)]
        assert all(mine.seed(compartment) in message for compartment in closed)
        assert theirs.owner.vault not in message
    november = lite.seed(lite.owner.compartment())
    assert not any(november in message for message in sent)  # the running month's seed stays in the worker


@pytest.mark.usefixtures("quiet")
def test_epochs_of_a_month_are_one_release_under_the_newest_key(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD, day=5)
    lite.extend(OCTOBER)
    lite.buy(MILK, day=6)
    assert lite.refresh(children, lite.keep_twin()).rows == 2
    (row,) = lite.stored(OCTOBER)
    assert row.compartment_id == lite.owner.compartment(PURCHASE, OCTOBER).id
    assert (lite.read(row).values == RETAIL.day_vector([BREAD]) + RETAIL.day_vector([MILK])).all()


@pytest.mark.usefixtures("quiet")
def test_a_months_batch_holding_other_months_counts_its_own_days_only(lite: TwinWorld, children: Children) -> None:
    lite.upload(lite.seal([purchase(BREAD, 5), purchase(MILK, 5, SEPTEMBER)]))
    lite.refresh(children, lite.keep_twin())
    assert (lite.read(lite.stored(OCTOBER)[0]).values == RETAIL.day_vector([BREAD])).all()
    assert not lite.read(lite.stored(SEPTEMBER)[0]).values.any()


@pytest.mark.parametrize(
    "reply", [None, b"", b"n", b"n" + bytes(15), b"n" + bytes(17), b"x" + bytes(16), b"r" + bytes(16)]
)
def test_only_the_asked_number_of_integers_is_an_answer(reply: bytes | None) -> None:
    with pytest.raises(SealError):
        parse_reply(reply, (2,))
    assert parse_reply(b"r", (2,)) is None
    numbers = parse_reply(b"n" + bytes(16), (2,))
    assert numbers is not None
    assert numbers.tolist() == [0, 0]


def test_a_fork_server_that_died_is_started_again(lite: TwinWorld) -> None:
    """Else every job of this worker would fail until somebody ends it."""
    lite.buy(BREAD)
    with Children() as children:
        children._server.kill()
        children._server.wait()
        assert lite.refresh(children, lite.keep_twin()).failed is False
    assert lite.stored()
