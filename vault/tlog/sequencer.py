"""The sequencer: one thread of the app that gives pending events their place and signs the tree.

Events wait in the database, so nothing is lost when it dies: an event is numbered and signed in
one transaction or not at all, by this process or the next.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

import structlog
from sqlalchemy import bindparam, literal, select

from vault.db import Database, Prepared
from vault.proof.checkpoint import Checkpoint
from vault.proof.note import VerifierKey
from vault.tlog import log as tlog
from vault.tlog.anchor import Anchor
from vault.tlog.bell import Bell
from vault.tlog.errors import JournalMissing, LogBusy, LogDamaged
from vault.tlog.journal import JOURNALED, Journal
from vault.tlog.log import PendingId
from vault.tlog.models import PENDING, log_entry
from vault.tlog.tree import grow, require_later, verify_tree

WINDOW_S = 0.005
_BUSY_WINDOW_S = 0.02  # several came at once, so more will, and each signature and flush is then for more of them
_FULL = 16  # a batch of so many pays for its signature without waiting for more
IDLE_POLL_S = 0.1  # the worker's events announce themselves by nothing but their rows, and a bell may go unheard
RETRY_S = 0.5

_ANY_PENDING = Prepared(select(literal(1).label("one")).select_from(log_entry).where(PENDING).limit(1))
_NUMBERED_BETWEEN = Prepared(
    select(log_entry.c.id, log_entry.c.leaf_index).where(
        log_entry.c.id.between(bindparam("first"), bindparam("last")), log_entry.c.leaf_index.is_not(None)
    )
)

_Tell: TypeAlias = Callable[[int | LogDamaged], None]

_log = structlog.get_logger()


class Sequencer:
    """Numbers, hashes and signs pending events, and wakes who waits for them.

    Every app process runs one. On PostgreSQL they take turns under an advisory lock; on SQLite one
    holds a file lock beside the database, and the others ring for it and listen, ready to take over.

    Args:
        database: Where events and tree lie.
        log: The log's public key; its name is the origin of the checkpoints.
        sign: Ed25519 under the log's key, held by the KMS.
        anchor: A file outside the database that keeps the newest checkpoint; None to do without.
        journal: A file outside the database that keeps what a restored backup must not undo; None to do without.
    """

    def __init__(
        self,
        database: Database,
        log: VerifierKey,
        sign: Callable[[bytes], bytes],
        anchor: Path | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._database = database
        self._key = log
        self._sign = sign
        self._anchor = Anchor(anchor, log) if anchor else None
        self._journal = journal
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
        self._bell = Bell(_beside(database, "bell"))
        self._stopped = threading.Event()
        self._mutex = threading.Lock()
        self._waiting: dict[PendingId, dict[Hashable, _Tell]] = {}
        self._failure: LogDamaged | None = None
        self._seen: Checkpoint | None = None
        self._seen_note = ""
        self._window_s = WINDOW_S
        self._election = _Election(database)
        self._forgetting: threading.Thread | None = None

    @property
    def elected(self) -> bool:
        """Whether this process sequences now; on PostgreSQL every one does."""
        return self._election.holds

    def start(self) -> None:
        """Compare the whole tree with its signed head, then begin to sequence.

        Raises:
            LogDamaged: They differ, or the log has not reached its anchor. The app must not serve: whatever it
                signed would confirm the damage.
            JournalMissing: It is gone, and without an anchor nobody can say that the database was not set back.
            InvalidProof: `sign` does not use the log's key.
        """
        anchored = self._anchor.read() if self._anchor else None
        with self._database.snapshot() as session:
            self._seen = verify_tree(session, self._key)
            if anchored is not None:
                require_later(session, self._seen, anchored)
        self._begin_journal(sure=anchored is not None)
        self._bell.open()
        self._sequence(sure=True)
        self._forget_beside()
        self._thread.start()

    def stop(self) -> None:
        """Finish the current batch and stop; events still pending are logged by the next process."""
        self._stopped.set()
        self._bell.ring()
        self._thread.join()
        if self._forgetting is not None:
            self._forgetting.join()
        self._election.resign()
        with self._mutex:
            self._bell.close()

    def wait(self, pending_id: PendingId, timeout_s: float) -> int:
        """Block until a signed checkpoint covers an event.

        Call it after the event's transaction has committed, never inside it.

        Args:
            pending_id: From `log.append`.
            timeout_s: How long at most.

        Returns:
            The event's leaf index.

        Raises:
            LogBusy: Not in time. The event stays recorded and will be logged.
            LogDamaged: The log refuses to go on.
        """
        place: SimpleQueue[int | LogDamaged] = SimpleQueue()  # a tenth of what a Future costs
        self._follow(pending_id, place, place.put)
        try:
            found = place.get(timeout=timeout_s)
        except BaseException as error:  # who was told is no longer listed
            self.drop(pending_id, place)
            if isinstance(error, Empty):
                raise LogBusy from None
            raise
        if isinstance(found, LogDamaged):
            raise found
        return found

    def follow(self, pending_id: PendingId) -> Future[int]:
        """Begin to wait without a thread of one's own; `drop` it in the end, come what may.

        Args:
            pending_id: From `log.append`, committed.

        Returns:
            The event's leaf index once a signed checkpoint covers it, or what `wait` raises.
        """
        place: Future[int] = Future()
        self._follow(pending_id, place, partial(_settle, place))
        return place

    def drop(self, pending_id: PendingId, place: Hashable) -> None:
        """Wait no longer."""
        with self._mutex:
            places = self._waiting.get(pending_id, {})
            places.pop(place, None)
            if not places:
                self._waiting.pop(pending_id, None)

    def forget_erased(self) -> None:
        """Return once the journal holds nothing any more of what was erased; see `Journal.forget_erased`.

        Raises:
            JournalMissing: Somebody took the file away.
            JournalDamaged: It holds something else than what was written.
        """
        if self._journal is not None:
            self._journal.forget_erased(self._database)

    def _forget_beside(self) -> None:
        """Let another thread do that: an erasure of which nobody waits for an acknowledgement, or one before a crash."""
        if self._journal is None or not self._journal.is_due():
            return
        if self._forgetting is None or not self._forgetting.is_alive():
            self._forgetting = threading.Thread(target=self._forget, name="journal", daemon=True)
            self._forgetting.start()

    def _forget(self) -> None:
        try:
            self.forget_erased()
        except Exception as error:  # noqa: BLE001  whatever it is, it stays due and is tried again
            _log.warning("journal.retry", error_type=type(error).__name__)
            self._stopped.wait(RETRY_S)

    def _follow(self, pending_id: PendingId, place: Hashable, tell: _Tell) -> None:
        with self._mutex:
            if self._failure is not None:
                raise LogDamaged(self._failure.detail)
            self._waiting.setdefault(pending_id, {})[place] = tell
            if self._election.holds:
                self._bell.ring()
            else:
                self._bell.ring_others()

    def _begin_journal(self, *, sure: bool) -> None:
        """Make the journal if there is none and the log is new or, by its anchor, surely not set back."""
        size = self._seen.size if self._seen else 0
        if self._journal is None or self._journal.exists():
            return
        if size and not sure:
            raise JournalMissing(
                "The journal of withdrawals and charges is gone, and the database may be older than what was signed. "
                "Put the journal back and start again; only if it is lost for good, accept that with "
                "`twinvault operator journal begin`."
            )
        self._journal.begin(size)

    def _run(self) -> None:
        while not self._stopped.is_set():
            rung = self._bell.wait(IDLE_POLL_S)
            if rung and self._election.holds:
                self._stopped.wait(self._window_s)  # company for one signature and one disk flush
            self._bell.clear()
            with self._mutex:
                asked = set(self._waiting)
            try:
                self._resolve(self._sequence(sure=rung or bool(asked)))
                with self._mutex:
                    if rung and self._election.holds:  # even for nothing: who asked may have come after the last ring
                        self._bell.ring_others()
                    asked &= self._waiting.keys()
                # Their events were committed before this batch and are not in it: another process has them.
                self._resolve(self._sequenced_elsewhere(asked))
                self._forget_beside()
            except LogDamaged as error:
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001  a KMS or database outage of any kind must not end sequencing
                _log.warning("log.retry", error_type=type(error).__name__)
                self._stopped.wait(RETRY_S)

    def _sequence(self, *, sure: bool) -> dict[PendingId, int]:
        """Grow the tree; unless `sure` that something waits, look first and leave writers alone."""
        if not self._election.won():
            return {}
        if not sure:
            with self._database.snapshot() as session:
                if _ANY_PENDING.one(session) is None:
                    return {}
        with self._database.transaction() as session:
            seen, numbered = grow(session, self._key, self._sign, self._seen, self._seen_note)
            # Before the commit: whoever waits in another process looks at the rows.
            if self._journal and any(event.kind in JOURNALED for event in numbered):
                self._journal.write(session, numbered[0].leaf_index, numbered[-1].leaf_index)
            note = tlog.checkpoint(session)
        self._seen, self._seen_note = seen, note
        self._window_s = _BUSY_WINDOW_S if 1 < len(numbered) < _FULL else WINDOW_S
        if self._anchor:
            self._anchor.write(note)
        return {event.pending_id: event.leaf_index for event in numbered}

    def _sequenced_elsewhere(self, waiting: set[PendingId]) -> dict[PendingId, int]:
        if not waiting:
            return {}
        with self._database.snapshot() as session:
            rows = _NUMBERED_BETWEEN.all(session, first=min(waiting), last=max(waiting))
        return {PendingId(row.id): row.leaf_index for row in rows}

    def _resolve(self, places: dict[PendingId, int]) -> None:
        with self._mutex:
            covered = [(self._waiting.pop(key), places[key]) for key in places.keys() & self._waiting.keys()]
        for waiting, index in covered:
            for tell in waiting.values():
                tell(index)

    def _fail(self, failure: LogDamaged) -> None:
        _log.error("log.damaged", slug=failure.slug)
        with self._mutex:
            self._failure = failure
            tells = [tell for waiting in self._waiting.values() for tell in waiting.values()]
            self._waiting.clear()
        for tell in tells:
            tell(LogDamaged(failure.detail))


def _settle(place: Future[int], found: int | LogDamaged) -> None:
    if not place.set_running_or_notify_cancel():
        return
    if isinstance(found, LogDamaged):
        place.set_exception(found)
    else:
        place.set_result(found)


class _Election:
    """On SQLite, a lock on a file beside the database that dies with its holder."""

    def __init__(self, database: Database) -> None:
        self._path = _beside(database, "sequencer")
        self._file: int | None = None

    @property
    def holds(self) -> bool:
        """Whether this process sequences."""
        return self._path is None or self._file is not None

    def won(self) -> bool:
        """Say whether this process may sequence, taking the lock if it is free."""
        if self._path is None or self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def resign(self) -> None:
        """Let another process take over."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _beside(database: Database, suffix: str) -> Path | None:
    path = database.url.database if database.is_sqlite else None
    return Path(f"{path}.{suffix}") if path and path != ":memory:" else None
