"""The journal: openings of what a restored backup must not undo, in a file of its own that no backup holds.

A database put back from yesterday has forgotten who withdrew since and what was charged. The sequencer
writes each such event here, flushed to the disk, before the event's transaction commits and so before
anything is acknowledged. An event that a crash kept from committing may stand here twice; it is told
from one that a restore took away by its row, which still waits in the database.

The file is one header frame, then one frame per batch (`vault.tlog.journal_records`). What an erasure destroyed is
taken out of it by writing it anew, which takes as long as it is large. Only what came meanwhile is added while
nobody may sequence; a file beside it says that this is due, so that whoever starts next finishes it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, cast

from sqlalchemy import select
from sqlmodel import Session

from vault.clock import Clock, SystemClock, unix_s
from vault.db import Database
from vault.proof.leaf import LeafKind
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.tlog import tree
from vault.tlog.errors import JournalDamaged, JournalMissing
from vault.tlog.journal_records import (
    Record,
    contents,
    damaged_text,
    dump_record,
    erased_whole,
    framed,
    parse_record,
    split_records,
)
from vault.tlog.log import Leaf, PendingId, between, is_copy
from vault.tlog.models import log_entry, log_opening

JOURNALED: Final = frozenset({
    LeafKind.CONSENT, LeafKind.RELEASE, LeafKind.TRAINING, LeafKind.ERASURE, LeafKind.RETENTION,
    LeafKind.LEGACY_PLAN, LeafKind.LEGACY_VETO, LeafKind.MODEL_WITHDRAWN,
    LeafKind.FREEZE, LeafKind.PROFILE, LeafKind.COMPANY, LeafKind.COMPANY_STATUS,
    LeafKind.RING_HEAD, LeafKind.SUCCESSION,
})  # fmt: skip
"""What is journaled: ends of consents and models, releases with their charges, erasures, plans that replace one, signs of
life, freezes, profiles, companies' keys, suspensions, ring heads, which name the devices that they revoke, successions."""

_ERASING: Final = frozenset({LeafKind.ERASURE, LeafKind.RETENTION})
# What was charged stays charged when its day is erased, in the ledger and so here.
_CHARGED: Final = frozenset({LeafKind.RELEASE, LeafKind.TRAINING})

MAX_BYTES: Final = 256 << 20
"""Above this what is old of the older half is dropped; a backup from before what is left starts frozen."""

KEPT: Final = timedelta(days=90)
"""How old it must be. Anybody can make events, so size alone must not decide what is forgotten."""

_FORMAT: Final = b"twinvault-journal/2"
_NAME_BYTES: Final = 16
_CHUNK: Final = 500  # below every database's limit on bound values


Signed = Callable[[Session, Sequence[Leaf]], Mapping[PendingId, bytes]]
"""Finds the envelopes that events put in force, of those events that are put in force again by their signature."""


@dataclass(frozen=True, slots=True)
class Journaled:
    """What the journal holds.

    Args:
        begins_at: Size of the log when it began: it knows of no event before.
        leaves: Every journaled event, oldest first, once each; the personal half is None where it was forgotten.
        signed: The envelopes that were journaled with them, by entry.
        newest: Id and entry of the newest event that the database had when it was written; None in a new journal.
    """

    begins_at: int
    leaves: tuple[Leaf, ...]
    signed: Mapping[bytes, bytes]
    newest: tuple[PendingId, bytes] | None


class Journal:
    """One file that app processes of one installation share; whoever sequences holds the lock to write it.

    Args:
        path: The file; its folder must exist.
        origin: Name of the log, so that another installation's journal is never taken for this one's.
        max_bytes: Above this what is old of the older half is dropped.
        signed: For whoever writes events.
        clock: Tells what is old.
    """

    def __init__(
        self, path: Path, origin: str, max_bytes: int = MAX_BYTES, signed: Signed = lambda _session, _leaves: {},
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._origin = origin.encode()
        self._max_bytes = self._full_bytes = max_bytes
        self._signed = signed
        self._clock = clock or SystemClock()
        self._sound_bytes = 0
        self._name = b""

    def exists(self) -> bool:
        """Say whether there is one; it may still be damaged."""
        return self._path.exists()

    def begin(self, size: int) -> None:
        """Make an empty journal of what happens from this size of the log on, unless another process just did."""
        staged = self._beside(str(os.getpid()))
        self._stage(staged, size, [])
        with suppress(FileExistsError):
            self._path.hardlink_to(staged)
        staged.unlink()
        self._flush_folder()

    def set_aside(self, name: str) -> None:
        """Rename the file, if there is one, so that another may begin."""
        if self.exists():
            self._path.rename(self._beside(name))

    def read(self) -> Journaled:
        """Return everything it holds.

        Raises:
            JournalMissing: There is none.
            JournalDamaged: It holds something else than what was written, or another log's events.
        """
        with self._open("rb") as file:
            begins_at, _ = self._header(file)
            records = [record for content in contents(file) for record in split_records(content)]
        parsed = [parse_record(record) for record in records]
        leaves = {leaf.entry: leaf for leaf in parsed if leaf.kind}
        newest = (parsed[-1].pending_id, parsed[-1].entry) if parsed else None
        signed = {leaf.entry: leaf.signed for leaf in leaves.values() if leaf.signed}
        return Journaled(begins_at, tuple(leaf.leaf() for leaf in leaves.values()), signed, newest)

    def write(self, session: Session, first: int, last: int) -> None:
        """Journal what is journaled of a stretch of the log; with an erasure, note that `forget_erased` is due.

        Args:
            session: The transaction that numbered the events.
            first: Leaf index of the first.
            last: Leaf index of the last.

        Raises:
            JournalMissing: Somebody took the file away; nothing is acknowledged without it.
            JournalDamaged: Somebody else wrote into it.
        """
        leaves = between(session, JOURNALED, first, last)
        self.append(leaves, self._signed(session, leaves))
        if any(leaf.kind in _ERASING for leaf in leaves):
            self.call_due()

    def append(self, leaves: Iterable[Leaf], signed: Mapping[PendingId, bytes] = MappingProxyType({})) -> None:
        """Add events, with the envelopes of some; when this returns they are on the disk. Adding none writes nothing.

        Raises:
            JournalMissing: Somebody took the file away; nothing is acknowledged without it.
            JournalDamaged: Somebody else wrote into it.
        """
        now_s = unix_s(self._clock.now())
        records = [dump_record(leaf, now_s, signed.get(leaf.pending_id, b"")) for leaf in leaves]
        if records:
            self._append(frames(*records))

    def mark(self, session: Session) -> None:
        """Note that the database, as it stands in this transaction, was compared and lacks nothing any more."""
        newest = session.connection().execute(select(log_entry).order_by(log_entry.c.id.desc()).limit(1)).one_or_none()
        if newest is not None:
            now_s = unix_s(self._clock.now())
            record = Record(PendingId(newest.id), newest.leaf_index or 0, now_s, "", newest.entry, None, None, b"", b"")
            self._append(frames(record.dump()))

    def is_due(self) -> bool:
        """Say whether an erasure was journaled whose events' personal halves may still be here."""
        return self._due.exists()

    def forget_erased(self, database: Database) -> None:
        """Drop the personal halves of events that the database has erased, and what was signed; nothing if none is due.

        The file is copied while others go on; what came meanwhile follows, and the copy takes its place, while nobody
        sequences. Whoever comes second waits for the first. Safe to interrupt anywhere and to run again.

        Args:
            database: Of the log, outside of any transaction.

        Raises:
            JournalMissing: Somebody took the file away.
            JournalDamaged: It holds something else than what was written.

        Guarantees: when this returns, what was erased before it was called cannot be read here; nothing else is gone. Of a
            person who was erased, that is also what a restore took from the database, which knows it no more.
        """
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # the last one that holds it lets go by dying, too
            while self.is_due():  # again where an erasure came meanwhile, or another file took the place of this one
                self._forget_erased(database)
        finally:
            os.close(folder)

    def _forget_erased(self, database: Database) -> None:
        staged = self._beside("emptied")
        due = self._due.read_bytes()
        with database.snapshot() as session, staged.open("wb") as copy, self._open("rb") as file:
            staged.chmod(0o600)
            begins_at, name = self._header(file)
            copy.write(self._begin(begins_at))
            # What was whole when it was called due: what follows, somebody may be writing just now.
            _copy_emptied(session, file, copy, int.from_bytes(due[_NAME_BYTES:], "big") if due.startswith(name) else 0)
            copied_bytes = file.tell()
            copy.flush()
            os.fsync(copy.fileno())
        with database.transaction() as session, staged.open("ab") as copy, self._open("rb") as file:
            tree.lock(session)
            if self._header(file)[1] != name:
                return
            file.seek(copied_bytes)
            _copy_emptied(session, file, copy)
            copy.flush()
            os.fsync(copy.fileno())
            if self._younger.exists():  # of somebody who died over it, with what is to be forgotten
                self._younger.unlink()
            staged.replace(self._path)
            self._flush_folder()
            if self._due.read_bytes() == due:
                self._due.unlink()

    def call_due(self) -> None:
        """Note that something is to be forgotten, and how much of which file is whole; nobody may sequence meanwhile."""
        with self._open("rb") as file:
            _, name = self._header(file)
        with self._due.open("wb") as file:
            file.write(name + self._path.stat().st_size.to_bytes(8, "big"))
            file.flush()
            os.fsync(file.fileno())
        self._flush_folder()

    def _append(self, content: bytes) -> None:
        with self._open("r+b") as file:
            _, name = self._header(file)
            if name != self._name:  # the first time, or since another process replaced it
                self._name, self._sound_bytes = name, file.tell()
            file.seek(self._sound_bytes)
            for _ in contents(file):  # what another process wrote, up to a frame that it left unfinished
                self._sound_bytes = file.tell()
            file.seek(self._sound_bytes)
            file.truncate()
            file.write(framed(content))
            file.flush()
            os.fsync(file.fileno())
            self._sound_bytes = file.tell()
        if self._sound_bytes > self._full_bytes:
            self._drop_old()
            # Where nothing is old it is not read whole again before it has grown by a quarter.
            self._full_bytes = max(self._max_bytes, self._path.stat().st_size * 5 // 4)

    def _drop_old(self) -> None:
        with self._open("rb") as file:
            begins_at, _ = self._header(file)
            records = [record for content in contents(file) for record in split_records(content)]
        before_s = unix_s(self._clock.now() - KEPT)
        older = [parse_record(record) for record in records[: len(records) // 2]]
        old = list(takewhile(lambda record: record.written_s < before_s, older))
        if old:
            # Where the database was set back, later events have lower indexes: what follows the highest is known whole.
            begins_at = max([begins_at, *(record.index + 1 for record in old)])
            self._replace(begins_at, records[len(old) :])
            if self.is_due():
                self.call_due()

    @property
    def _due(self) -> Path:
        return self._beside("due")

    def _begin(self, begins_at: int) -> bytes:
        """Return the first frame of a new file, with a name that no other has."""
        name = secrets.token_bytes(_NAME_BYTES)  # an inode's number would not do: the next file may get it again
        return framed(frames(_FORMAT, self._origin, begins_at.to_bytes(8, "big"), name))

    @property
    def _younger(self) -> Path:
        """What takes the place of a file that became too large; only whoever may sequence touches it."""
        return self._beside("younger")

    def _beside(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}")

    def _stage(self, staged: Path, begins_at: int, records: list[bytes]) -> None:
        staged.unlink(missing_ok=True)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._begin(begins_at))
            if records:
                file.write(framed(frames(*records)))
            file.flush()
            os.fsync(file.fileno())

    def _replace(self, begins_at: int, records: list[bytes]) -> None:
        self._stage(self._younger, begins_at, records)
        self._younger.replace(self._path)
        self._flush_folder()

    def _flush_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self, mode: str) -> BinaryIO:
        try:
            return cast("BinaryIO", self._path.open(mode))
        except FileNotFoundError as error:
            raise JournalMissing(
                f"The journal {self._path.name} is gone; nothing is acknowledged without it. Put it back."
            ) from error

    def _header(self, file: BinaryIO) -> tuple[int, bytes]:
        """Return where the journal begins, and the name of this file, which no other has."""
        content = next(contents(file), b"")
        try:
            reader = Reader(content, 1 << 16)
            found, origin, begins_at, name = (reader.frame() for _ in range(4))
            reader.end()
        except SealError as error:
            raise JournalDamaged(damaged_text(self._path)) from error
        if found != _FORMAT or origin != self._origin:
            raise JournalDamaged(damaged_text(self._path))
        return int.from_bytes(begins_at, "big"), name


def lacking(session: Session, journaled: Journaled) -> tuple[Leaf, ...]:
    """Return the journaled events that the database does not have, oldest first.

    Args:
        session: Any transaction.
        journaled: From `Journal.read`.
    """
    if journaled.newest is None:
        return ()
    # A copy may have what was noted when it was compared the last time it was put back; it lacks the same again.
    if not is_copy(session) and _has(session, [journaled.newest]):
        return ()
    found: set[bytes] = set()
    named = [(leaf.pending_id, leaf.entry) for leaf in journaled.leaves]
    for start in range(0, len(named), _CHUNK):
        found |= _has(session, named[start : start + _CHUNK])
    return tuple(leaf for leaf in journaled.leaves if leaf.entry not in found)


def _copy_emptied(session: Session, file: BinaryIO, copy: BinaryIO, end: int | None = None) -> None:
    """Copy the frames from where the file stands, or those before its byte `end`, without what was erased."""
    at = file.tell()
    whole = erased_whole(file, end)
    file.seek(at)
    records = enumerate(record for content in contents(file, end) for record in split_records(content))
    while some := list(islice(records, _CHUNK)):
        parsed = [(place, record, parse_record(record)) for place, record in some]
        personal = [(place, one) for place, _, one in parsed if one.personal and one.kind not in _CHARGED]
        erased = _erased(session, [one for _, one in personal])
        erased |= {one.entry for place, one in personal if place < whole.get(one.about, 0)}
        kept = (one.emptied() if one.entry in erased else record for _, record, one in parsed)
        copy.write(framed(frames(*kept)))


def _erased(session: Session, leaves: list[Record]) -> set[bytes]:
    """Return the entries, for ids would not do: a database that was set back gives them out anew."""
    query = select(log_entry.c.entry).join(log_opening, log_opening.c.entry_id == log_entry.c.id)
    named = log_entry.c.id.in_([leaf.pending_id for leaf in leaves])
    erased = session.connection().execute(query.where(named, log_opening.c.personal_salt.is_(None))).scalars()
    return {leaf.entry for leaf in leaves}.intersection(erased)


def _has(session: Session, named: list[tuple[PendingId, bytes]]) -> set[bytes]:
    query = select(log_entry.c.id, log_entry.c.entry).where(log_entry.c.id.in_([name for name, _ in named]))
    rows = {row.id: row.entry for row in session.connection().execute(query)}
    return {entry for name, entry in named if rows.get(name) == entry}
