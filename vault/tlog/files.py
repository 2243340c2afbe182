"""The log as static files: tiles, entry bundles and checkpoint in a folder that any file server can publish.

A file once written never changes, except `checkpoint`, which is replaced only by one that the
published tree is a prefix of. The files prove themselves: whoever serves them need not be trusted.

Source: https://c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlmodel import Session

from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.note import VerifierKey, parse_note
from vault.proof.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, tile_width
from vault.tlog import log
from vault.tlog.errors import LogDamaged, NotInLog
from vault.tlog.tree import require_later
from vault.tlog.witnesses import newest

CHECKPOINT: Final = "checkpoint"

_LOCK: Final = ".lock"


class LogFiles:
    """One published folder.

    Args:
        folder: What a file server serves; made if it is missing.
        log: The log's key.
    """

    def __init__(self, folder: Path, log: VerifierKey) -> None:
        self._folder = folder
        self._key = log

    def published(self) -> Checkpoint | None:
        """Return the published checkpoint, or None before the first.

        Raises:
            LogDamaged: The file is not a checkpoint of this log.
        """
        try:
            return verify_checkpoint((self._folder / CHECKPOINT).read_bytes().decode(), self._key, self._key.name)
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, InvalidProof) as error:
            raise LogDamaged(
                "The published checkpoint is not one of this log. Whoever follows the log may have seen it: find out "
                "who wrote it; then move the folder of the log's files away and start again."
            ) from error

    def publish(self, session: Session) -> Checkpoint:
        """Write what the log has grown by, then its newest checkpoint; do nothing if it has not grown.

        Files first, flushed, the checkpoint last and in one step: a reader of any checkpoint finds every tile
        it needs, whatever happens in between. Two processes take turns.

        Args:
            session: A snapshot.

        Raises:
            LogDamaged: The published tree is not a prefix of this one, or a file is not what it must be.
            NotInLog: The log has never been started.
        """
        with self._alone():
            before = self.published()
            return self._write(session, before, before.size if before else 0)

    def require_grown(self, session: Session) -> None:
        """Demand that the log grew from what is published, before anything is signed over it.

        Args:
            session: A snapshot in which nothing was read yet.

        Raises:
            LogDamaged: It is older, or another log.
        """
        before = self.published()
        if before is None:
            return
        try:
            head = verify_checkpoint(log.head(session)[1], self._key, self._key.name)
        except NotInLog:
            head = None
        require_later(session, head, before)

    def recover(self, session: Session) -> Checkpoint:
        """Compare every file with the log, put back what is missing, and publish.

        Args:
            session: A snapshot.

        Raises:
            LogDamaged: A file differs from the log, or the published tree is not a prefix of this one.
            NotInLog: The log has never been started.
        """
        with self._alone():
            return self._write(session, self.published(), 0)

    def set_aside(self) -> None:
        """Move the published files out of the way, because whoever runs the log accepts that it forks."""
        before = self.published()
        if before is not None:
            self._folder.rename(self._folder.with_name(f"{self._folder.name}.{before.size}-{before.root.hex()[:8]}"))

    def _write(self, session: Session, before: Checkpoint | None, since: int) -> Checkpoint:
        size, note = log.head(session)
        head = verify_checkpoint(note, self._key, self._key.name)
        cosigned = newest(session)
        if cosigned is not None and parse_note(cosigned[1]).unverified_text == head.text:
            note = cosigned[1]
        if before is not None:
            require_later(session, head, before)
        for tile in grown_tiles(since, size):
            self._add(tile, _content(session, tile))
        published = self._folder / CHECKPOINT
        if head != before or published.read_text() != note:  # the same one may have been cosigned meanwhile
            _replace(published, note.encode())
        for full in grown_tiles(since, size):
            if full.width == TILE_WIDTH:  # readers of older checkpoints take the full tile instead
                shutil.rmtree(self._folder / f"{full.path}.p", ignore_errors=True)
        return head

    def _add(self, tile: Tile, content: bytes) -> None:
        path = self._folder / tile.path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        elif path.read_bytes() != content:
            raise LogDamaged(
                f"The published file {tile.path} is not made from the entries of the log. If a file server's copy was "
                "altered, delete the file and start again; if not, the log itself was rewritten."
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def grown_tiles(old_size: int, size: int) -> Iterator[Tile]:
    """Yield every tile and entry bundle of a tree of `size` leaves that the one of `old_size` does not have."""
    level = 0
    while size >> (TILE_HEIGHT * level):
        old, new = (count >> (TILE_HEIGHT * level) for count in (old_size, size))
        for index in range(old // TILE_WIDTH, -(-new // TILE_WIDTH)):
            width = tile_width(level, index, size)
            if width > tile_width(level, index, old_size):
                yield Tile(level, index, width)
                if level == 0:
                    yield Tile(None, index, width)
        level += 1


def _content(session: Session, tile: Tile) -> bytes:
    if tile.level is None:
        return log.entries(session, tile.index, tile.width)
    return log.tile(session, tile.level, tile.index, tile.width)


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)
