"""A device's spool: traces wait here until the service acknowledged them; a crash at any point loses none.

One upload is open at a time. It is kept, sealed, until its acknowledgement, and sent again byte for
byte after a crash; chain heads move only with the acknowledgement, so a refused upload can be
taken apart and sealed anew.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinvault.api import ClientError
from vault.encoding import dump_json, parse_json
from vault.schema.trace import Trace, dump_trace, parse_trace
from vault.seal.device import ChainHead
from vault.seal.ids import CompartmentId

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS trace (
  key BLOB PRIMARY KEY,          -- hash of source and id: an event is kept once, however often it is imported
  category TEXT NOT NULL, period TEXT NOT NULL, at INTEGER NOT NULL,
  body BLOB,                     -- NULL once acknowledged
  upload INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting ON trace (period, category, at) WHERE body IS NOT NULL;
CREATE TABLE IF NOT EXISTS upload (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chain (compartment BLOB PRIMARY KEY, seq INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS head_list (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
INSERT OR IGNORE INTO head_list VALUES (1, 0);
"""
_BUSY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """One trace of the spool.

    Args:
        key: What it is found by.
        category: Its category.
        period: Month of its local date.
        trace: The trace.
        size: Its bytes here.
    """

    key: bytes
    category: str
    period: str
    trace: Trace
    size: int


class Spool:
    """The traces of one device that the service has not acknowledged, and the heads of its chains.

    Args:
        path: The file, inside the profile's folder.

    Raises:
        ClientError: The file is not a spool or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ClientError(
                f"The spool {path} cannot be used ({error}); free disk space or move the file away."
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything inside at once, or nothing of it; other processes wait."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def add(self, traces: Iterable[tuple[Trace, str]]) -> int:
        """Keep traces with their months; return how many are new to this device."""
        before = self._connection.total_changes
        rows = (_row(trace, period) for trace, period in traces)
        with self.transaction():
            self._connection.executemany("INSERT OR IGNORE INTO trace VALUES (?, ?, ?, ?, ?, NULL)", rows)
        return self._connection.total_changes - before

    def waiting(self) -> Iterator[Waiting]:
        """Yield traces that belong to no upload, month by month, oldest first."""
        rows = self._connection.execute(
            "SELECT key, category, period, body FROM trace WHERE body IS NOT NULL AND upload IS NULL"
            " ORDER BY period, category, at, key"
        )
        for key, category, period, body in rows:
            yield Waiting(key, category, period, parse_trace(parse_json(body)), len(body))

    def places(self) -> list[tuple[str, str]]:
        """Return the (category, month) pairs of the traces that belong to no upload."""
        return self._connection.execute(
            "SELECT DISTINCT category, period FROM trace WHERE body IS NOT NULL AND upload IS NULL"
        ).fetchall()

    def count(self) -> int:
        """Return how many traces are not acknowledged yet."""
        (found,) = self._connection.execute("SELECT count(*) FROM trace WHERE body IS NOT NULL").fetchone()
        return int(found)

    def chains(self) -> dict[CompartmentId, ChainHead]:
        """Return the last acknowledged batch of each compartment."""
        rows = self._connection.execute("SELECT compartment, seq, digest FROM chain")
        return {CompartmentId(name): ChainHead(seq, digest) for name, seq, digest in rows}

    def upload(self) -> bytes | None:
        """Return the sealed upload that waits for its acknowledgement."""
        row = self._connection.execute("SELECT body FROM upload").fetchone()
        return None if row is None else bytes(row[0])

    def next_version(self) -> int:
        """Return a head list version that was never used."""
        row = self._connection.execute("UPDATE head_list SET version = version + 1 RETURNING version").fetchone()
        return int(row[0])

    def keep_upload(self, body: bytes, keys: Iterable[bytes]) -> None:
        """Keep a sealed upload with the traces in it; call it inside a transaction."""
        self._connection.execute("INSERT INTO upload VALUES (1, ?)", (body,))
        self._connection.executemany("UPDATE trace SET upload = 1 WHERE key = ?", ((key,) for key in keys))

    def acknowledge(self, heads: Mapping[CompartmentId, ChainHead]) -> int:
        """Move the chains on and forget the upload and its traces; return how many traces that were."""
        with self.transaction():
            rows = [(name, head.seq, head.digest) for name, head in heads.items()]
            self._connection.executemany("INSERT OR REPLACE INTO chain VALUES (?, ?, ?)", rows)
            done = self._connection.execute("UPDATE trace SET body = NULL, upload = NULL WHERE upload = 1").rowcount
            self._connection.execute("DELETE FROM upload")
        return done

    def forget(self, category: str, period: str) -> None:
        """Forget which traces of a category and month were sent, so that they can be added again."""
        with self.transaction():
            sent = "category = ? AND period = ? AND body IS NULL"
            self._connection.execute(f"DELETE FROM trace WHERE {sent}", (category, period))  # noqa: S608  (constants)

    def take_apart(self) -> None:
        """Give a refused upload's traces back to be sealed anew."""
        with self.transaction():
            self._connection.execute("UPDATE trace SET upload = NULL WHERE upload = 1")
            self._connection.execute("DELETE FROM upload")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _row(trace: Trace, period: str) -> tuple[bytes, str, str, int, bytes]:
    record = dump_trace(trace)
    key = hashlib.sha256(f"{len(trace.source)} {trace.source} {trace.id}".encode()).digest()[:16]
    return key, trace.category, period, int(str(record["at"])), dump_json(record)
