"""The bytes of the journal: frames, each with its length, that length's CRC-32 and its SHA-256, of records.

A last frame that was being written when the power went is none; any other damage is an error.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from vault.encoding import parse_b64u, parse_json
from vault.proof.leaf import LeafKind, Opening
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.ids import ID_BYTES, sha256
from vault.tlog.errors import JournalDamaged
from vault.tlog.log import Leaf, PendingId

_HEAD: Final = struct.Struct(">II32s")


@dataclass(frozen=True, slots=True)
class Record:
    """One event, or a mark, which has no kind."""

    pending_id: PendingId
    index: int
    written_s: int
    kind: str
    entry: bytes
    public: Opening | None
    personal: Opening | None
    signed: bytes
    about: bytes

    def dump(self) -> bytes:
        """Return its bytes."""
        halves = [
            part for half in (self.public, self.personal) for part in ((half.salt, half.body) if half else (b"", b""))
        ]
        numbers = [number.to_bytes(8, "big") for number in (self.pending_id, self.index, self.written_s)]
        return frames(*numbers, self.kind.encode(), self.entry, *halves, self.signed, self.about)

    def emptied(self) -> bytes:
        """Return its bytes without the personal half, what was signed, and whom it concerns."""
        return replace(self, personal=None, signed=b"", about=b"").dump()

    def leaf(self) -> Leaf:
        """Return the event; a mark is none."""
        assert self.public is not None
        kind, about = LeafKind(self.kind), self.about or None
        return Leaf(self.pending_id, self.index, kind, self.entry, self.public, self.personal, about)


def dump_record(leaf: Leaf, now_s: int, signed: bytes) -> bytes:
    """Return the bytes of an event's record.

    Args:
        leaf: The event.
        now_s: Unix seconds.
        signed: The envelope that put it in force; empty for none.
    """
    kind, opened = leaf.kind.value, (leaf.public, leaf.personal)
    return Record(leaf.pending_id, leaf.index, now_s, kind, leaf.entry, *opened, signed, leaf.about or b"").dump()


def parse_record(record: bytes) -> Record:
    """Read a record.

    Raises:
        JournalDamaged: It is none of this release's.
    """
    try:
        reader = Reader(record, len(record))
        name, index, written_s, kind, entry, *halves, signed, about = (reader.frame() for _ in range(11))
        reader.end()
        public, personal = (Opening(salt, body) if salt else None for salt, body in (halves[:2], halves[2:]))
        if kind:
            LeafKind(kind.decode())
    except (SealError, ValueError) as error:
        raise JournalDamaged("The journal holds something that this release does not know.") from error
    return Record(
        PendingId(int.from_bytes(name, "big")), int.from_bytes(index, "big"), int.from_bytes(written_s, "big"),
        kind.decode(), entry, public, personal, signed, about,
    )  # fmt: skip


def erased_whole(file: BinaryIO, end: int | None = None) -> dict[bytes, int]:
    """Return everybody who was erased whole, with the place of the last record that says so: who came back stays.

    Args:
        file: From whose place on frames are read.
        end: Before which byte to stop; by default the file's end.
    """
    kind, found = LeafKind.ERASURE.value.encode(), {}
    for place, record in enumerate(record for content in contents(file, end) for record in split_records(content)):
        if kind in record and (one := parse_record(record)).kind == LeafKind.ERASURE and one.personal:
            said = parse_json(one.personal.body)
            if said.get("whole") == 1:
                found[parse_b64u(said["vault"], size=ID_BYTES)] = place
    return found


def split_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of one frame's content."""
    reader = Reader(content, len(content))
    while reader.left_bytes:
        yield reader.frame()


def framed(content: bytes) -> bytes:
    """Return a frame of this content."""
    return _HEAD.pack(len(content), _length_check(len(content)), sha256(content)) + content


def _length_check(size: int) -> int:
    # Without it a flipped bit of a length would look like an unfinished frame and hide all that follows.
    return zlib.crc32(size.to_bytes(4, "big"))


def contents(file: BinaryIO, end: int | None = None) -> Iterator[bytes]:
    """Yield frames from where the file stands; stop before a last one that was not written to its end.

    Args:
        file: Opened for reading.
        end: Before which byte to stop; by default the file's end.

    Raises:
        JournalDamaged: A frame is not what was written.
    """
    end = os.fstat(file.fileno()).st_size if end is None else end
    while (at := file.tell()) < end:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or (not any(head) and not any(file.read())):
            break
        size, check, digest = _HEAD.unpack(head)
        if check != _length_check(size):
            raise JournalDamaged(damaged_text(Path(str(file.name))))
        content = file.read(size) if at + _HEAD.size + size <= end else b""
        if len(content) == size and sha256(content) == digest:
            yield content
            continue
        if at + _HEAD.size + size < end:
            raise JournalDamaged(damaged_text(Path(str(file.name))))
        break
    else:
        return
    file.seek(at)


def damaged_text(path: Path) -> str:
    """Return what to do about a journal that is not what was written."""
    return (
        f"The file {path.name} is not the journal that this service wrote. Put the newest copy of it back and start"
        " again; only if it is lost for good, accept that with `twinvault operator journal begin`."
    )
