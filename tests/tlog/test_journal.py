"""The journal holds, flushed and outside the database, what was acknowledged; torn ends are cut, damage is refused."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from vault.db import Database
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.proof.note import VerifierKey
from vault.tlog import log
from vault.tlog.errors import JournalDamaged, JournalMissing, LogBusy
from vault.tlog.journal import KEPT, Journal, lacking
from vault.tlog.log import Leaf
from vault.tlog.models import log_entry, log_head, log_opening
from vault.tlog.sequencer import Sequencer

from .conftest import ORIGIN

WAIT_S = 20.0
DAY = timedelta(days=1)

Sign = Callable[[bytes], bytes]


@dataclass
class HandClock:
    """Tells what it is set to, and goes on by `step` each time."""

    step: timedelta = timedelta(0)
    time: datetime = datetime(2026, 11, 27, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += self.step
        return self.time


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "log.journal", ORIGIN, clock=HandClock())


def live(database: Database, key: VerifierKey, sign: Sign, journal: Journal, *kinds: LeafKind) -> list[bytes]:
    """One life of the app: start, log an event of each kind, stop; return the entries."""
    anchor = Path(f"{journal._path}.anchor")
    sequencer = Sequencer(database, key, sign, anchor, journal)
    sequencer.start()
    entries = []
    for n, kind in enumerate(kinds):
        with database.transaction() as session:
            pending = log.append(session, kind, {"n": n}, {"secret": n})
        sequencer.wait(pending.id, WAIT_S)
        entries.append(pending.entry)
        if kind is LeafKind.CONSENT:
            assert journal.read().leaves[-1].entry == pending.entry  # there when the wait ends
    sequencer.stop()
    return entries


def forget(database: Database, journal: Journal, leaf: Leaf) -> None:
    """Erase an event, and let the journal forget it."""
    with database.transaction() as session:
        log.delete_personal_openings(session, [leaf.pending_id])
    journal.call_due()
    journal.forget_erased(database)


def set_back(database: Database, size: int) -> None:
    """Take the newest events away, as a restored backup does."""
    with database.transaction() as session:
        ids = sqlalchemy.select(log_entry.c.id).where(log_entry.c.leaf_index >= size)
        session.connection().execute(sqlalchemy.delete(log_opening).where(log_opening.c.entry_id.in_(ids)))
        session.connection().execute(sqlalchemy.delete(log_entry).where(log_entry.c.leaf_index >= size))


def test_what_must_survive_is_journaled_with_both_openings(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    kinds = (LeafKind.ANSWER, LeafKind.CONSENT, LeafKind.RELEASE, LeafKind.DENIAL, LeafKind.ERASURE)
    entries = live(database, log_key, sign, journal, *kinds)
    found = journal.read()
    assert found.begins_at == 0
    assert [leaf.entry for leaf in found.leaves] == [entries[1], entries[2], entries[4]]
    for leaf in found.leaves:
        assert verify_opening(leaf.entry, Part.PUBLIC, leaf.public) == {"kind": leaf.kind, "n": leaf.index}
        assert leaf.personal is not None
        assert verify_opening(leaf.entry, Part.PERSONAL, leaf.personal) == {"secret": leaf.index}
    with database.snapshot() as session:
        assert lacking(session, found) == ()
    assert stat.S_IMODE(journal._path.stat().st_mode) == 0o600


def test_what_was_signed_is_kept_beside_its_event_and_forgotten_with_it(
    tmp_path: Path, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    journal = Journal(
        tmp_path / "log.journal",
        ORIGIN,
        signed=lambda _, leaves: {leaf.pending_id: b"an order" for leaf in leaves if leaf.kind is LeafKind.FREEZE},
    )
    entries = live(database, log_key, sign, journal, LeafKind.FREEZE, LeafKind.CONSENT, LeafKind.FREEZE)
    assert journal.read().signed == {entries[0]: b"an order", entries[2]: b"an order"}
    for leaf in journal.read().leaves:
        forget(database, journal, leaf)
    assert journal.read().signed == {}
    assert [leaf.entry for leaf in journal.read().leaves] == entries
    assert b"an order" not in journal._path.read_bytes()


def test_it_lists_what_a_database_set_back_lacks_until_that_is_marked(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    entries = live(database, log_key, sign, journal, LeafKind.CONSENT, LeafKind.CONSENT, LeafKind.RELEASE)
    set_back(database, 1)
    with database.transaction() as session:
        assert [leaf.entry for leaf in lacking(session, journal.read())] == entries[1:]
        journal.mark(session)
        assert lacking(session, journal.read()) == ()
        log.call_copy(session)  # the same copy, put back once more
        assert [leaf.entry for leaf in lacking(session, journal.read())] == entries[1:]
        log.call_compared(session)
    set_back(database, 0)
    with database.snapshot() as session:
        assert [leaf.entry for leaf in lacking(session, journal.read())] == entries


def test_an_event_that_a_crash_kept_from_committing_is_not_lacking(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    append = journal.append

    def die(*what: Any) -> None:
        append(*what)
        raise KeyboardInterrupt

    with database.transaction() as session:
        pending = log.append(session, LeafKind.CONSENT, {}, {})
    sequencer = Sequencer(database, log_key, sign, Path(f"{journal._path}.anchor"), journal)
    monkeypatch.setattr(journal, "append", die)
    with pytest.raises(KeyboardInterrupt):
        sequencer.start()
    monkeypatch.undo()
    assert journal.read().leaves[-1].entry == pending.entry
    with database.snapshot() as session:
        assert log.leaf_index(session, pending.id) is None
        assert lacking(session, journal.read()) == ()
    live(database, log_key, sign, journal)
    assert [leaf.entry for leaf in journal.read().leaves].count(pending.entry) == 1


def test_nothing_is_acknowledged_while_the_journal_cannot_be_written(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    sequencer = Sequencer(database, log_key, sign, Path(f"{journal._path}.anchor"), journal)
    sequencer.start()
    away = journal._path.with_suffix(".away")
    journal._path.rename(away)
    with database.transaction() as session:
        pending = log.append(session, LeafKind.CONSENT, {}, {})
    with pytest.raises(LogBusy):
        sequencer.wait(pending.id, 0.7)
    away.rename(journal._path)
    sequencer.wait(pending.id, WAIT_S)
    sequencer.stop()
    assert journal.read().leaves[-1].entry == pending.entry


def test_a_lost_journal_begins_anew_only_where_the_anchor_shows_that_nothing_was_set_back(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    journal._path.unlink()
    live(database, log_key, sign, journal)
    assert journal.read() == journal.read().__class__(1, (), {}, None)
    journal._path.unlink()
    Path(f"{journal._path}.anchor").unlink()
    with pytest.raises(JournalMissing, match="operator journal begin"):
        live(database, log_key, sign, journal)
    assert not journal.exists()


@pytest.mark.parametrize("left_bytes", [1, 3, 20, 37, 100])
def test_a_torn_end_is_cut_and_written_over(
    left_bytes: int, database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    whole = journal._path.read_bytes()
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    second = journal._path.read_bytes()
    for torn in (second[: len(whole) + left_bytes], second[:-1] + bytes([second[-1] ^ 1]), whole + bytes(left_bytes)):
        journal._path.write_bytes(torn)
        assert len(journal.read().leaves) == 1
        fresh = Journal(journal._path, ORIGIN, clock=HandClock())
        fresh.append(journal.read().leaves)
        assert journal._path.read_bytes() == whole + whole[-(len(journal._path.read_bytes()) - len(whole)) :]
        assert len(fresh.read().leaves) == 1


def test_damage_before_the_end_is_refused(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT, LeafKind.CONSENT)
    data, leaves = journal._path.read_bytes(), journal.read().leaves
    for at in (0, 3, 5, 30, 60, *range(100, len(data) // 2, 7)):
        journal._path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        for use in (journal.read, lambda: Journal(journal._path, ORIGIN).append(leaves)):
            with pytest.raises(JournalDamaged, match="journal"):
                use()
        assert journal._path.stat().st_size == len(data)
    journal._path.write_bytes(data)
    with pytest.raises(JournalDamaged):
        Journal(journal._path, "log.example/another").read()
    journal._path.unlink()
    with pytest.raises(JournalMissing):
        journal.read()


def test_two_processes_append_to_one_file(
    journal: Journal, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    (leaf,) = journal.read().leaves
    other = Journal(journal._path, ORIGIN)
    for n, writer in enumerate((journal, other, journal, other)):
        writer.append([Leaf(leaf.pending_id, n, leaf.kind, bytes([n]) * 65, leaf.public, leaf.personal)])
        with journal._path.open("ab") as file:
            file.write(b"\x00\x00\x01")  # the other died while it wrote
    assert [found.index for found in journal.read().leaves] == [0, 0, 1, 2, 3]


def test_a_file_that_another_process_replaced_is_known_for_another(
    journal: Journal, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    """Twice replaced it may have the inode of before, and be shorter."""
    live(database, log_key, sign, journal, *[LeafKind.CONSENT] * 3)
    leaves = journal.read().leaves
    other = Journal(journal._path, ORIGIN)
    for leaf in leaves[:2]:
        journal.append([leaf])
        forget(database, other, leaf)
        forget(database, other, leaves[2])
        journal.append([leaf])
        other.append([leaf])
    assert {leaf.entry for leaf in journal.read().leaves} == {leaf.entry for leaf in leaves}


def test_it_is_bounded_and_says_from_where_on_it_knows(
    tmp_path: Path, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    journal = Journal(tmp_path / "log.journal", ORIGIN, max_bytes=6000, clock=HandClock(KEPT + DAY))
    live(database, log_key, sign, journal, *[LeafKind.CONSENT] * 40)
    found = journal.read()
    assert journal._path.stat().st_size <= 6000
    assert found.leaves[-1].index == 39
    assert [leaf.index for leaf in found.leaves] == list(range(found.begins_at, 40))


def test_nothing_young_is_dropped_however_much_is_written(
    tmp_path: Path, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    """Else anybody who makes enough events drops everybody's withdrawals."""
    clock = HandClock()
    journal = Journal(tmp_path / "log.journal", ORIGIN, max_bytes=3000, clock=clock)
    live(database, log_key, sign, journal, *[LeafKind.CONSENT] * 2)
    (leaf, _) = journal.read().leaves
    clock.time += KEPT  # almost old
    journal.append([replace(leaf, index=n, entry=bytes([n]) * 65) for n in range(2, 30)])
    assert [kept.index for kept in journal.read().leaves] == list(range(30))
    clock.time += DAY
    journal.append([replace(leaf, index=n, entry=bytes([n]) * 65) for n in range(30, 60)])
    assert [kept.index for kept in journal.read().leaves] == list(range(2, 60))
    assert journal.read().begins_at == 2


def test_events_of_a_log_that_was_set_back_count_for_what_the_shortened_journal_knows(
    tmp_path: Path, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    """Once they are dropped, a backup that lacks one of them must not pass for one that lacks nothing."""
    journal = Journal(tmp_path / "log.journal", ORIGIN, max_bytes=8000, clock=HandClock(KEPT + DAY))
    live(database, log_key, sign, journal, *[LeafKind.CONSENT] * 12)
    leaf = journal.read().leaves[-1]
    with database.transaction() as session:
        session.connection().execute(sqlalchemy.update(log_entry).values(leaf_index=None))  # the newest waits
        journal.mark(session)
    while journal.read().begins_at == 0:
        journal.append([Leaf(leaf.pending_id, 3, leaf.kind, bytes(65), leaf.public, leaf.personal)])
    assert leaf.entry not in [kept.entry for kept in journal.read().leaves]
    assert journal.read().begins_at == 12


def test_forgetting_drops_the_personal_half_only(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT, LeafKind.CONSENT)
    first, second = journal.read().leaves
    assert first.personal is not None
    forget(database, journal, first)
    assert first.personal.salt not in journal._path.read_bytes()
    after = journal.read().leaves
    assert (after[0].personal, after[0].public, after[1]) == (None, first.public, second)
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    assert len(journal.read().leaves) == 3
    assert sorted(path.name for path in journal._path.parent.glob("log.journal*")) == [
        "log.journal", "log.journal.anchor",
    ]  # fmt: skip


def test_with_an_erasure_the_journal_forgets_what_the_database_forgot(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT, LeafKind.CONSENT, LeafKind.RELEASE)
    before = journal.read().leaves
    assert before[0].personal is not None
    with database.transaction() as session:
        log.delete_personal_openings(session, [before[0].pending_id, before[2].pending_id])
    assert live(database, log_key, sign, journal, LeafKind.ERASURE)
    after = journal.read().leaves
    assert before[0].personal.salt not in journal._path.read_bytes()
    assert [leaf.personal is None for leaf in after] == [True, False, False, False]  # what was charged stays charged


def test_an_event_that_a_set_back_took_away_is_not_forgotten_for_the_one_that_has_its_id_now(
    database: Database, log_key: VerifierKey, sign: Sign, journal: Journal
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    (before,) = journal.read().leaves
    with database.transaction() as session:
        session.connection().execute(sqlalchemy.update(log_entry).values(entry=bytes(65), kind=LeafKind.ERASURE.value))
        log.delete_personal_openings(session, [before.pending_id])
        journal.write(session, before.index, before.index)
    journal.forget_erased(database)
    assert journal.read().leaves[0] == before


def test_an_old_tree_is_not_needed_to_read_it(
    journal: Journal, database: Database, log_key: VerifierKey, sign: Sign
) -> None:
    live(database, log_key, sign, journal, LeafKind.CONSENT)
    with database.transaction() as session:
        for table in (log_opening, log_entry, log_head):
            session.connection().execute(sqlalchemy.delete(table))
    with database.snapshot() as session:
        assert len(lacking(session, journal.read())) == 1
