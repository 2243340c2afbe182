"""Whatever is changed in the database, the rebuilt tree does not match the signature, and the log stays shut."""

from collections.abc import Callable

import pytest
from sqlalchemy import delete, insert, select, update
from sqlmodel import Session

from vault.db import Database
from vault.proof.checkpoint import Checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.merkle import Edge
from vault.proof.note import VerifierKey, sign_note
from vault.tlog import log
from vault.tlog.errors import LogDamaged, NotInLog
from vault.tlog.models import log_entry, log_head, log_opening, log_tile
from vault.tlog.sequencer import Sequencer
from vault.tlog.tree import grow, verify_tree

Sign = Callable[[bytes], bytes]
SIZE = 520


@pytest.fixture
def grown(database: Database, log_key: VerifierKey, sign: Sign) -> Database:
    with database.transaction() as session:
        for n in range(SIZE):
            log.append(session, LeafKind.ANSWER, {"n": n}, {})
    with database.transaction() as session:
        grow(session, log_key, sign, None)
    return database


def _change_entry(session: Session) -> None:
    session.connection().execute(update(log_entry).where(log_entry.c.leaf_index == 300).values(entry=bytes(65)))


def _change_last_entry(session: Session) -> None:
    session.connection().execute(update(log_entry).where(log_entry.c.leaf_index == SIZE - 1).values(entry=bytes(65)))


def _swap_entries(session: Session) -> None:
    for old, new in [(7, -1), (8, 7), (-1, 8)]:
        session.connection().execute(update(log_entry).where(log_entry.c.leaf_index == old).values(leaf_index=new))


def _drop_entry(session: Session) -> None:
    pending_id = log.leaf(session, 40).pending_id
    session.connection().execute(delete(log_opening).where(log_opening.c.entry_id == pending_id))
    session.connection().execute(delete(log_entry).where(log_entry.c.id == pending_id))


def _drop_last_entry(session: Session) -> None:
    session.connection().execute(update(log_entry).where(log_entry.c.leaf_index == SIZE - 1).values(leaf_index=None))


def _add_entry(session: Session) -> None:
    session.connection().execute(insert(log_entry).values(kind="answer", entry=bytes(65), leaf_index=SIZE))


def _negative_index(session: Session) -> None:
    session.connection().execute(insert(log_entry).values(kind="answer", entry=bytes(65), leaf_index=-1))


def _change_tile(session: Session) -> None:
    tile = session.connection().execute(select(log_tile.c.hashes).where(log_tile.c.tile_index == 1)).scalar_one()
    session.connection().execute(
        update(log_tile).where(log_tile.c.tile_index == 1).values(hashes=tile[:-1] + bytes([tile[-1] ^ 1]))
    )


def _change_tile_root(session: Session) -> None:
    session.connection().execute(update(log_tile).where(log_tile.c.tile_index == 0).values(root=bytes(32)))


def _drop_tile(session: Session) -> None:
    session.connection().execute(delete(log_tile).where(log_tile.c.tile_index == 1))


def _add_tile(session: Session) -> None:
    session.connection().execute(insert(log_tile).values(level=1, tile_index=0, hashes=bytes(8192), root=bytes(32)))


def _change_edge(session: Session) -> None:
    edge = session.connection().execute(select(log_head.c.edge)).scalar_one()
    session.connection().execute(update(log_head).values(edge=bytes(32) + edge[32:]))


def _cut_edge(session: Session) -> None:
    session.connection().execute(update(log_head).values(edge=b"cut"))


def _change_size(session: Session) -> None:
    session.connection().execute(update(log_head).values(size=SIZE + 1))


def _change_checkpoint(session: Session) -> None:
    note = session.connection().execute(select(log_head.c.checkpoint)).scalar_one()
    session.connection().execute(update(log_head).values(checkpoint=note.replace(f"\n{SIZE}\n", f"\n{SIZE + 1}\n")))


def _drop_head(session: Session) -> None:
    session.connection().execute(delete(log_head))


CHANGES = [
    _change_entry, _change_last_entry, _swap_entries, _drop_entry, _drop_last_entry, _add_entry, _negative_index,
    _change_tile, _change_tile_root, _drop_tile, _add_tile, _change_edge, _cut_edge, _change_size,
    _change_checkpoint, _drop_head,
]  # fmt: skip


def test_an_untouched_log_passes(grown: Database, log_key: VerifierKey) -> None:
    with grown.snapshot() as session:
        checkpoint = verify_tree(session, log_key)
    assert checkpoint is not None
    assert checkpoint.size == SIZE


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_keeps_the_log_shut(
    change: Callable[[Session], None], grown: Database, log_key: VerifierKey, sign: Sign
) -> None:
    with grown.transaction() as session:
        change(session)
    with pytest.raises(LogDamaged):
        Sequencer(grown, log_key, sign).start()


@pytest.mark.parametrize("change", [_change_edge, _cut_edge, _change_size, _change_checkpoint])
def test_a_changed_head_is_never_signed_on(
    change: Callable[[Session], None], grown: Database, log_key: VerifierKey, sign: Sign
) -> None:
    with grown.transaction() as session:
        change(session)
        log.append(session, LeafKind.ANSWER, {}, {})
    with pytest.raises(LogDamaged), grown.transaction() as session:
        grow(session, log_key, sign, None)


def test_a_rewritten_tree_under_the_log_s_own_key_is_refused_by_who_saw_the_old_one(
    grown: Database, log_key: VerifierKey, sign: Sign
) -> None:
    with grown.snapshot() as session:
        seen = verify_tree(session, log_key)
    assert seen is not None
    with grown.transaction() as session:
        for table in (log_opening, log_entry, log_tile, log_head):
            session.connection().execute(delete(table))
        for n in range(SIZE + 5):
            log.append(session, LeafKind.ANSWER, {"n": n}, {})
        forked, _ = grow(session, log_key, sign, None)
        log.append(session, LeafKind.ANSWER, {}, {})
    assert forked.size > seen.size
    with pytest.raises(LogDamaged, match="older or another"), grown.transaction() as session:
        grow(session, log_key, sign, seen)


def test_a_head_signed_for_another_origin_is_refused(grown: Database, log_key: VerifierKey, sign: Sign) -> None:
    with grown.transaction() as session:
        root = Edge().root
        note = sign_note(Checkpoint("log.example/other", 0, root).text, log_key, sign)
        session.connection().execute(update(log_head).values(size=0, edge=b"", checkpoint=note))
    with grown.snapshot() as session, pytest.raises(LogDamaged, match="another log"):
        verify_tree(session, log_key)


@pytest.mark.parametrize("change", [_drop_entry, _drop_tile])
def test_a_hole_is_an_error_never_a_shorter_answer(change: Callable[[Session], None], grown: Database) -> None:
    with grown.transaction() as session:
        change(session)
    with grown.snapshot() as session, pytest.raises((LogDamaged, NotInLog)):
        for index in (0, 1):
            log.entries(session, index, 256)
            log.tile(session, 0, index, 256)
