"""The journal: openings of what a restored backup must not undo, in a file of its own that no backup holds.

A database put back from yesterday has forgotten who withdrew since and what was charged. The sequencer
writes each such event here, flushed to the disk, before the event's transaction commits and so before
anything is acknowledged. An event that a crash kept from committing may stand here twice; it is told
from one that a restore took away by its row, which still waits in the database.

The file is one header frame, then one frame per batch: length, its CRC-32, SHA-256 of the content, content.
A last frame that was being written when the power went is cut off; any other damage is an error.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, cast

from sqlalchemy import select
from sqlmodel import Session

from vault.clock import Clock, SystemClock, unix_s
from vault.proof.leaf import LeafKind, Opening
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.ids import sha256
from vault.tlog.errors import JournalDamaged, JournalMissing
from vault.tlog.log import Leaf, PendingId, between, is_copy
from vault.tlog.models import log_entry, log_opening

JOURNALED: Final = frozenset({
    LeafKind.CONSENT, LeafKind.RELEASE, LeafKind.TRAINING, LeafKind.ERASURE, LeafKind.RETENTION,
    LeafKind.LEGACY_PLAN, LeafKind.LEGACY_VETO, LeafKind.MODEL_WITHDRAWN,
    LeafKind.FREEZE, LeafKind.PROFILE, LeafKind.COMPANY, LeafKind.COMPANY_STATUS,
    LeafKind.RING_HEAD,
})  # fmt: skip
"""What is journaled: ends of consents and models, releases with their charges, erasures, plans that replace one, signs of
life, freezes, profiles, companies' keys, suspensions, ring heads, which name the devices that they revoke."""

_ERASING: Final = frozenset({LeafKind.ERASURE, LeafKind.RETENTION})
# What was charged stays charged when its day is erased, in the ledger and so here.
_CHARGED: Final = frozenset({LeafKind.RELEASE, LeafKind.TRAINING})

MAX_BYTES: Final = 256 << 20
"""Above this what is old of the older half is dropped; a backup from before what is left starts frozen."""

KEPT: Final = timedelta(days=90)
"""How old it must be. Anybody can make events, so size alone must not decide what is forgotten."""

_FORMAT: Final = b"twinvault-journal/1"
_HEAD: Final = struct.Struct(">II32s")
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
        with suppress(FileExistsError):
            self._path.hardlink_to(self._stage(size, []))
        self._staged.unlink()
        self._flush_folder()

    def set_aside(self, name: str) -> None:
        """Rename the file, if there is one, so that another may begin."""
        if self.exists():
            self._path.rename(self._path.with_name(f"{self._path.name}.{name}"))

    def read(self) -> Journaled:
        """Return everything it holds.

        Raises:
            JournalMissing: There is none.
            JournalDamaged: It holds something else than what was written, or another log's events.
        """
        with self._open("rb") as file:
            begins_at, _ = self._header(file)
            records = [record for content in _contents(file) for record in _split(content)]
        parsed = [_parse(record) for record in records]
        leaves = {leaf.entry: leaf for leaf in parsed if leaf.kind}
        newest = (parsed[-1].pending_id, parsed[-1].entry) if parsed else None
        signed = {leaf.entry: leaf.signed for leaf in leaves.values() if leaf.signed}
        return Journaled(begins_at, tuple(leaf.leaf() for leaf in leaves.values()), signed, newest)

    def write(self, session: Session, first: int, last: int) -> None:
        """Journal what is journaled of a stretch of the log; with an erasure, forget what its transaction forgot.

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
            self.forget(lambda kept: set(_forgotten(session, kept)))

    def append(self, leaves: Iterable[Leaf], signed: Mapping[PendingId, bytes] = MappingProxyType({})) -> None:
        """Add events, with the envelopes of some; when this returns they are on the disk. Adding none writes nothing.

        Raises:
            JournalMissing: Somebody took the file away; nothing is acknowledged without it.
            JournalDamaged: Somebody else wrote into it.
        """
        now_s = unix_s(self._clock.now())
        records = [_dump(leaf, now_s, signed.get(leaf.pending_id, b"")) for leaf in leaves]
        if records:
            self._append(frames(*records))

    def mark(self, session: Session) -> None:
        """Note that the database, as it stands in this transaction, was compared and lacks nothing any more."""
        newest = session.connection().execute(select(log_entry).order_by(log_entry.c.id.desc()).limit(1)).one_or_none()
        if newest is not None:
            now_s = unix_s(self._clock.now())
            record = _Record(PendingId(newest.id), newest.leaf_index or 0, now_s, "", newest.entry, None, None, b"")
            self._append(frames(record.dump()))

    def forget(self, choose: Callable[[list[_Record]], set[bytes]]) -> None:
        """Drop the personal halves of events and what was signed, as `log.delete_personal_openings` does in the database.

        Nobody may sequence meanwhile, so every record is read once.

        Args:
            choose: Returns the log entries of those that go; ids would not do, which a database set back gives out anew.
        """
        with self._open("rb") as file:
            begins_at, _ = self._header(file)
            kept = [(record, _parse(record)) for content in _contents(file) for record in _split(content)]
        forgotten = choose([one for _, one in kept if one.personal and one.kind not in _CHARGED])
        if forgotten:
            self._replace(begins_at, [one.emptied() if one.entry in forgotten else record for record, one in kept])

    def _append(self, content: bytes) -> None:
        with self._open("r+b") as file:
            _, name = self._header(file)
            if name != self._name:  # the first time, or since another process replaced it
                self._name, self._sound_bytes = name, file.tell()
            file.seek(self._sound_bytes)
            for _ in _contents(file):  # what another process wrote, up to a frame that it left unfinished
                self._sound_bytes = file.tell()
            file.seek(self._sound_bytes)
            file.truncate()
            file.write(_frame(content))
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
            records = [record for content in _contents(file) for record in _split(content)]
        before_s = unix_s(self._clock.now() - KEPT)
        older = [_parse(record) for record in records[: len(records) // 2]]
        old = list(takewhile(lambda record: record.written_s < before_s, older))
        if old:
            # Where the database was set back, later events have lower indexes: what follows the highest is known whole.
            begins_at = max([begins_at, *(record.index + 1 for record in old)])
            self._replace(begins_at, records[len(old) :])

    @property
    def _staged(self) -> Path:
        return self._path.with_name(f"{self._path.name}.{os.getpid()}")

    def _stage(self, begins_at: int, records: list[bytes]) -> Path:
        self._staged.unlink(missing_ok=True)
        descriptor = os.open(self._staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            name = secrets.token_bytes(_NAME_BYTES)  # an inode's number would not do: the next file may get it again
            file.write(_frame(frames(_FORMAT, self._origin, begins_at.to_bytes(8, "big"), name)))
            if records:
                file.write(_frame(frames(*records)))
            file.flush()
            os.fsync(file.fileno())
        return self._staged

    def _replace(self, begins_at: int, records: list[bytes]) -> None:
        self._stage(begins_at, records).replace(self._path)
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
        content = next(_contents(file), b"")
        try:
            reader = Reader(content, 1 << 16)
            found, origin, begins_at, name = (reader.frame() for _ in range(4))
            reader.end()
        except SealError as error:
            raise JournalDamaged(_damaged(self._path)) from error
        if found != _FORMAT or origin != self._origin:
            raise JournalDamaged(_damaged(self._path))
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


@dataclass(frozen=True, slots=True)
class _Record:
    """One event, or a mark, which has no kind."""

    pending_id: PendingId
    index: int
    written_s: int
    kind: str
    entry: bytes
    public: Opening | None
    personal: Opening | None
    signed: bytes

    def dump(self) -> bytes:
        halves = [
            part for half in (self.public, self.personal) for part in ((half.salt, half.body) if half else (b"", b""))
        ]
        numbers = [number.to_bytes(8, "big") for number in (self.pending_id, self.index, self.written_s)]
        return frames(*numbers, self.kind.encode(), self.entry, *halves, self.signed)

    def emptied(self) -> bytes:
        return replace(self, personal=None, signed=b"").dump()

    def leaf(self) -> Leaf:
        assert self.public is not None
        return Leaf(self.pending_id, self.index, LeafKind(self.kind), self.entry, self.public, self.personal)


def _dump(leaf: Leaf, now_s: int, signed: bytes) -> bytes:
    kind, opened = leaf.kind.value, (leaf.public, leaf.personal)
    return _Record(leaf.pending_id, leaf.index, now_s, kind, leaf.entry, *opened, signed).dump()


def _parse(record: bytes) -> _Record:
    try:
        reader = Reader(record, len(record))
        name, index, written_s, kind, entry, *halves, signed = (reader.frame() for _ in range(10))
        reader.end()
        public, personal = (Opening(salt, body) if salt else None for salt, body in (halves[:2], halves[2:]))
        if kind:
            LeafKind(kind.decode())
    except (SealError, ValueError) as error:
        raise JournalDamaged("The journal holds something that this release does not know.") from error
    return _Record(
        PendingId(int.from_bytes(name, "big")), int.from_bytes(index, "big"), int.from_bytes(written_s, "big"),
        kind.decode(), entry, public, personal, signed,
    )  # fmt: skip


def _split(content: bytes) -> Iterator[bytes]:
    reader = Reader(content, len(content))
    while reader.left_bytes:
        yield reader.frame()


def _frame(content: bytes) -> bytes:
    return _HEAD.pack(len(content), _length_check(len(content)), sha256(content)) + content


def _length_check(size: int) -> int:
    # Without it a flipped bit of a length would look like an unfinished frame and hide all that follows.
    return zlib.crc32(size.to_bytes(4, "big"))


def _contents(file: BinaryIO) -> Iterator[bytes]:
    """Yield frames from where the file stands; stop before a last one that was not written to its end.

    Raises:
        JournalDamaged: A frame is not what was written.
    """
    end = os.fstat(file.fileno()).st_size
    while (at := file.tell()) < end:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or (not any(head) and not any(file.read())):
            break
        size, check, digest = _HEAD.unpack(head)
        if check != _length_check(size):
            raise JournalDamaged(_damaged(Path(str(file.name))))
        content = file.read(size) if at + _HEAD.size + size <= end else b""
        if len(content) == size and sha256(content) == digest:
            yield content
            continue
        if at + _HEAD.size + size < end:
            raise JournalDamaged(_damaged(Path(str(file.name))))
        break
    else:
        return
    file.seek(at)


def _forgotten(session: Session, leaves: list[_Record]) -> Iterator[bytes]:
    wanted = {leaf.entry for leaf in leaves}
    query = select(log_entry.c.entry).join(log_opening, log_opening.c.entry_id == log_entry.c.id)
    query = query.where(log_opening.c.personal_salt.is_(None))
    for start in range(0, len(leaves), _CHUNK):
        named = log_entry.c.id.in_([leaf.pending_id for leaf in leaves[start : start + _CHUNK]])
        yield from wanted.intersection(session.connection().execute(query.where(named)).scalars())


def _has(session: Session, named: list[tuple[PendingId, bytes]]) -> set[bytes]:
    query = select(log_entry.c.id, log_entry.c.entry).where(log_entry.c.id.in_([name for name, _ in named]))
    rows = {row.id: row.entry for row in session.connection().execute(query)}
    return {entry for name, entry in named if rows.get(name) == entry}


def _damaged(path: Path) -> str:
    return (
        f"The file {path.name} is not the journal that this service wrote. Put the newest copy of it back and start"
        " again; only if it is lost for good, accept that with `twinvault operator journal begin`."
    )
