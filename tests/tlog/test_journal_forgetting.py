"""What an erasure destroyed leaves the journal whole: others go on meanwhile, and no death loses or revives anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.dying import die
from tests.tlog.test_journal import HandClock, Sign, live, set_back
from tests.waiting import together, until
from vault.db import Database
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.seal.erasure import Scope, dump_scope
from vault.seal.ids import CompartmentId, VaultId
from vault.tlog import log, tree
from vault.tlog.errors import JournalDamaged, JournalMissing
from vault.tlog.journal import Journal, Journaled
from vault.tlog.log import Leaf
from vault.tlog.sequencer import Sequencer

from .conftest import ORIGIN

Begun = tuple[Journal, Database, Journaled]
STEPS = 5
"""What reaches the disk while a journal forgets: the copy, what came meanwhile, its new name, the folder, that it is done."""


class Held(Journal):
    """A journal that is called due to forget and does not."""

    def forget_erased(self, database: Database) -> None:
        assert self.is_due()


@pytest.fixture
def begun(sqlite_database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path) -> Begun:
    """A journal of three consents and an erasure of the first, which it still holds."""
    held = Held(tmp_path / "log.journal", ORIGIN)
    live(sqlite_database, log_key, sign, held, *[LeafKind.CONSENT] * 3)
    erase(sqlite_database, held.read().leaves[0])
    live(sqlite_database, log_key, sign, held, LeafKind.ERASURE)
    before = held.read()
    assert [leaf.personal is None for leaf in before.leaves] == [False] * 4
    return fresh(held), sqlite_database, before


def fresh(journal: Journal) -> Journal:
    """Return the journal as another process knows it."""
    return Journal(journal._path, ORIGIN)


def erase(database: Database, leaf: Leaf) -> None:
    with database.transaction() as session:
        log.delete_personal_openings(session, [leaf.pending_id])


def late(before: Journaled) -> Leaf:
    """Return an event that the database never had."""
    known = before.leaves[1]
    return Leaf(log.PendingId(99), 99, LeafKind.CONSENT, bytes(65), known.public, known.personal)


def forgotten(journal: Journal, before: Journaled, *gone: int, more: int = 0) -> None:
    """Demand that everything is there but the personal halves of some, in no file of the folder."""
    after = journal.read().leaves
    assert [leaf.entry for leaf in after[: len(before.leaves)]] == [leaf.entry for leaf in before.leaves]
    assert [leaf.personal for leaf in after[: len(before.leaves)]] == [
        None if at in gone else leaf.personal for at, leaf in enumerate(before.leaves)
    ]
    assert len(after) == len(before.leaves) + more
    assert not journal.is_due()
    for path in journal._path.parent.glob("log.journal*"):
        for at in gone:
            personal = before.leaves[at].personal
            assert personal is not None
            assert personal.salt not in path.read_bytes(), path.name


def at_each_step(patch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """Do something before each step that reaches the disk."""
    steps = count()

    def counted(real: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            act(next(steps))
            return real(*args, **kwargs)

        return step

    patch.setattr(os, "fsync", counted(os.fsync))
    patch.setattr(Path, "replace", counted(Path.replace))
    patch.setattr(Path, "unlink", counted(Path.unlink))


def ended(act: Callable[[], object], dies_at: int) -> bool:
    """Run something in a process that is killed before its nth step; say whether it came to its end."""
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            at_each_step(patch, lambda step: die() if step == dies_at else None)
            try:
                act()
            except BaseException:  # noqa: BLE001  nothing of this process may go on in the child
                os._exit(3)
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in {0, 9}
    return status == 0


@pytest.mark.parametrize("dies_at", range(STEPS + 1))
def test_whoever_dies_while_it_forgets_loses_nothing_and_the_next_one_finishes(begun: Begun, dies_at: int) -> None:
    journal, database, before = begun
    url = database.url.render_as_string(hide_password=False)
    assert ended(lambda: fresh(journal).forget_erased(Database(url)), dies_at) == (dies_at == STEPS)
    known = journal.read()
    assert [leaf.entry for leaf in known.leaves] == [leaf.entry for leaf in before.leaves]
    assert journal.is_due() == (dies_at < STEPS)
    journal.append(known.leaves[1:2])  # others go on, whatever became of it
    fresh(journal).forget_erased(database)
    forgotten(journal, before, 0)


@pytest.mark.parametrize("dies_at", range(4))
def test_whoever_dies_while_an_erasure_is_journaled_leaves_it_due(
    sqlite_database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path, dies_at: int
) -> None:
    """Before it is called due, the erasure is not in the log either, and is journaled by the next one."""
    held = Held(tmp_path / "log.journal", ORIGIN)
    live(sqlite_database, log_key, sign, held, LeafKind.CONSENT)
    before = held.read()
    erase(sqlite_database, before.leaves[0])
    with sqlite_database.transaction() as session:
        erasure = log.append(session, LeafKind.ERASURE, {}, {})
    url = sqlite_database.url.render_as_string(hide_password=False)

    def sequence() -> None:
        sequencer = Sequencer(Database(url), log_key, sign, None, fresh_held)
        sequencer._election.won()
        sequencer._sequence(sure=True)

    fresh_held = Held(held._path, ORIGIN)
    assert ended(sequence, dies_at) == (dies_at == 3)
    live(sqlite_database, log_key, sign, fresh(held))
    assert [leaf.entry for leaf in held.read().leaves] == [before.leaves[0].entry, erasure.entry]
    assert held.read().leaves[0].personal is None
    assert not held.is_due()


def test_what_comes_meanwhile_follows_and_nobody_waits_for_the_copy(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, database, before = begun
    other, copied = fresh(journal), journal._path.with_name("log.journal.emptied")
    event = late(before)

    def meanwhile(step: int) -> None:
        if step == 0:
            monkeypatch.undo()
            with database.transaction() as session:  # as whoever sequences
                tree.lock(session)
                other.append([event])
            with journal._path.open("ab") as file:
                file.write(b"\x00\x00\x01")  # and dies while it writes
            copy = copied.read_bytes()
            assert all(leaf.entry in copy for leaf in before.leaves)
            assert event.entry not in copy

    at_each_step(monkeypatch, meanwhile)
    journal.forget_erased(database)
    forgotten(journal, before, 0, more=1)
    other.append([before.leaves[1]])
    assert [leaf.entry for leaf in fresh(journal).read().leaves] == [
        *[leaf.entry for leaf in before.leaves],
        event.entry,
    ]


def test_what_is_erased_meanwhile_is_forgotten_too(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, database, before = begun
    other = fresh(journal)

    def meanwhile(step: int) -> None:
        if step == 0:
            monkeypatch.undo()
            erase(database, before.leaves[1])
            other.append(before.leaves[3:])
            other.call_due()

    at_each_step(monkeypatch, meanwhile)
    journal.forget_erased(database)
    forgotten(journal, before, 0, 1)


def test_a_file_that_another_took_the_place_of_meanwhile_is_read_again(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, database, before = begun
    other = fresh(journal)

    def meanwhile(step: int) -> None:
        if step == 0:
            monkeypatch.undo()
            other.set_aside("aside")
            other.begin(0)
            other.append([*before.leaves, late(before)])
            other.call_due()
            journal._path.with_name("log.journal.aside").unlink()

    at_each_step(monkeypatch, meanwhile)
    journal.forget_erased(database)
    forgotten(journal, before, 0, more=1)


def test_what_somebody_left_who_died_over_a_journal_grown_too_large_is_forgotten_too(begun: Begun) -> None:
    journal, database, before = begun

    def drop_old() -> None:
        later = Journal(journal._path, ORIGIN, max_bytes=1, clock=HandClock(time=datetime(2126, 11, 27, tzinfo=UTC)))
        later.append(before.leaves[1:2])

    assert not ended(drop_old, 3)  # before what it wrote beside is flushed
    erase(database, before.leaves[2])
    journal.call_due()
    left = [path.name for path in journal._path.parent.glob("log.journal.*") if path.suffix not in {".anchor", ".due"}]
    assert len(left) == 1
    journal.forget_erased(database)
    forgotten(journal, before, 0, 2, more=0)


def test_of_an_erased_person_what_a_restore_took_from_the_database_is_forgotten_too(
    sqlite_database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    """A process dies between an erasure's leaf and the forgetting, and a backup older than all of it is put back."""
    held = Held(tmp_path / "log.journal", ORIGIN)
    ann, bob = VaultId(b"a" * 16), VaultId(b"b" * 16)
    part = Scope(bob, (CompartmentId(b"c" * 16),))
    for kind, about, said in (
        (LeafKind.CONSENT, ann, {"whose": 1}),
        (LeafKind.CONSENT, bob, {"whose": 2}),
        (LeafKind.RELEASE, ann, {"charge": 3}),
        (LeafKind.ERASURE, bob, dump_scope(part)),
        (LeafKind.ERASURE, None, dump_scope(Scope(ann, None))),
        (LeafKind.CONSENT, ann, {"whose": 6}),  # who comes back is somebody that nobody erased
    ):
        with sqlite_database.transaction() as session:
            log.append(session, kind, {}, {**said}, about=about)
    live(sqlite_database, log_key, sign, held)
    before = held.read()
    assert [leaf.about for leaf in before.leaves] == [ann, bob, ann, bob, None, ann]
    set_back(sqlite_database, 0)
    fresh(held).forget_erased(sqlite_database)
    forgotten(fresh(held), before, 0)
    assert [leaf.about for leaf in held.read().leaves] == [None, bob, ann, bob, None, ann]


def test_two_at_once_take_turns(begun: Begun) -> None:
    journal, database, before = begun
    together(*[lambda: fresh(journal).forget_erased(database)] * 4)
    forgotten(journal, before, 0)


def test_a_lost_or_damaged_journal_forgets_nothing_and_stays_as_it_is(begun: Begun) -> None:
    journal, database, _ = begun
    content = journal._path.read_bytes()
    for damaged in (content[:200] + bytes([content[200] ^ 1]) + content[201:], content[:-1] + bytes([content[-1] ^ 1])):
        journal._path.write_bytes(damaged + content[-1:])
        with pytest.raises(JournalDamaged):
            fresh(journal).forget_erased(database)
        assert journal._path.read_bytes() == damaged + content[-1:]
        assert journal.is_due()
    journal._path.unlink()
    with pytest.raises(JournalMissing):
        fresh(journal).forget_erased(database)
    assert journal.is_due()


def test_where_nobody_waits_for_it_the_sequencer_sees_to_it(
    begun: Begun, log_key: VerifierKey, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, database, before = begun
    monkeypatch.setattr("vault.tlog.sequencer.RETRY_S", 0.01)
    left = count()

    class OnceMore(Journal):
        def forget_erased(self, database: Database) -> None:
            if next(left) == 0:
                raise OSError("the disk is away for a moment")
            super().forget_erased(database)

    again = OnceMore(journal._path, ORIGIN)
    sequencer = Sequencer(database, log_key, sign, Path(f"{journal._path}.anchor"), again)
    sequencer.start()
    try:
        until(lambda: not again.is_due(), "the sequencer lets the journal forget")
    finally:
        sequencer.stop()
    forgotten(journal, before, 0)
