"""Notices as they happen: one watcher of the log for a whole process, which wakes the streams whose vaults it grew by.

Who waits holds no thread and no connection to the database: a thousand open streams cost one small query a
poll, and reading for them takes threads of its own, never one that an answer needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread
import structlog

from vault.db import Database
from vault.errors import VaultError
from vault.notices.feed import Notice
from vault.seal.ids import VaultId
from vault.tlog import growth
from vault.tlog.growth import Growth

POLL_S: Final = 0.5
STREAM_S: Final = 300.0
"""How long one stream lasts; the client opens the next one where it ended."""

MAX_STREAMS: Final = 1_000
MAX_STREAMS_OF_VAULT: Final = 4
PAGE: Final = 64
_READERS: Final = 4

_log = structlog.get_logger()


class TooManyStreams(VaultError):
    """More open streams than one vault or this process serves."""

    slug = "too-many-streams"
    title = "Too many open streams"
    status = 503


class Streams:
    """The open streams of one process.

    Args:
        database: Where the log lies.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: defaultdict[VaultId, int] = defaultdict(int)
        self._waiting: defaultdict[VaultId, set[anyio.Event]] = defaultdict(set)
        self._readers = anyio.CapacityLimiter(_READERS)

    @asynccontextmanager
    async def place(self, vault_id: VaultId) -> AsyncIterator[None]:
        """Hold one of the places for streams.

        Raises:
            TooManyStreams: All are taken.
        """
        if sum(self._open.values()) >= MAX_STREAMS or self._open[vault_id] >= MAX_STREAMS_OF_VAULT:
            raise TooManyStreams("Too many streams are open; close one, or read page by page.", retry_after_s=30)
        self._open[vault_id] += 1
        try:
            yield
        finally:
            self._open[vault_id] -= 1
            if not self._open[vault_id]:
                del self._open[vault_id]

    async def follow(self, vault_id: VaultId, after: int, read: Callable[[int], list[Notice]]) -> AsyncIterator[Notice]:
        """Yield a vault's notices as the log grows, for `STREAM_S` at most.

        Args:
            vault_id: Whose.
            after: The last leaf index already seen.
            read: Returns the next page of at most `PAGE` after an index, in a thread; what it raises ends the stream.
        """
        ends_at = anyio.current_time() + STREAM_S
        while anyio.current_time() < ends_at:
            woken = anyio.Event()
            self._waiting[vault_id].add(woken)  # before reading, so that nothing is logged unseen in between
            try:
                page = await anyio.to_thread.run_sync(read, after, limiter=self._readers)
                if not page:
                    with anyio.move_on_at(ends_at):
                        await woken.wait()
            finally:
                self._waiting[vault_id].discard(woken)
                if not self._waiting[vault_id]:
                    del self._waiting[vault_id]
            for notice in page:  # nothing is held meanwhile: who hung up never comes back for the next one
                after = notice.leaf.index
                yield notice

    async def watch(self) -> None:
        """Wake streams as the log grows, as long as the app runs; nothing is asked while none is open."""
        seen: int | None = None
        while True:
            await anyio.sleep(POLL_S)
            if not self._waiting:
                seen = None
                continue
            try:
                seen = await self._wake(seen)
            except Exception as error:  # noqa: BLE001  # a database outage must not end watching; the next turn looks again
                _log.warning("streams not woken", reason=type(error).__name__)

    async def _wake(self, seen: int | None) -> int:
        grown = await anyio.to_thread.run_sync(self._grown, seen, limiter=self._readers)
        for vault_id in list(self._waiting) if grown.all else grown.about & self._waiting.keys():
            for woken in self._waiting[VaultId(vault_id)]:
                woken.set()
        return grown.last

    def _grown(self, seen: int | None) -> Growth:
        with self._database.snapshot() as session:
            return growth.since(session, seen)
