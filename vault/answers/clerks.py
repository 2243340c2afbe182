"""Clerks: the few threads that decide on questions and prove answers, one step after the other.

A question that waits for its checkpoint holds no thread. Where each had one, those who had the database's turn
fought for the interpreter with those who had yet to decide, and everybody waited for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeAlias, TypeVar

from vault.db import Database, DatabaseBusy
from vault.tlog.errors import LogBusy
from vault.tlog.log import PendingId
from vault.tlog.sequencer import Sequencer

Steps: TypeAlias = Generator[PendingId, None, bytes]
"""What answers one question: runs until its event is recorded, yields it, and goes on once a checkpoint covers it."""

_T = TypeVar("_T")
_ON_SQLITE: Final = 1  # writers take turns there, and more threads only fight for the interpreter
_ON_POSTGRESQL: Final = 4
_FREE_WITHIN_S: Final = 30  # as long as anybody waits for a writer's turn


class Clerks:
    """The threads of one process that answer.

    Args:
        database: Whose writers they are.
    """

    def __init__(self, database: Database) -> None:
        count = _ON_SQLITE if database.is_sqlite else _ON_POSTGRESQL
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="clerk")

    async def answer(self, steps: Steps, sequencer: Sequencer, timeout_s: float) -> bytes:
        """Take both steps, and wait for the checkpoint between them.

        Args:
            steps: Of one question.
            sequencer: Of the log that it is recorded in.
            timeout_s: How long to wait for the checkpoint at most.

        Returns:
            What the steps return.

        Raises:
            DatabaseBusy: No clerk was free in time, and nothing was done: a writer that hangs holds them up.
            LogBusy: No checkpoint, or no clerk after it, came in time. The event stays recorded and will be logged.
            LogDamaged: The log refuses to go on.
            VaultError: Whatever the steps raise.
        """
        pending_id = await self._run(next, steps, DatabaseBusy)
        place = sequencer.follow(pending_id)
        try:
            await asyncio.wait_for(asyncio.wrap_future(place), timeout_s)
        except TimeoutError:
            raise LogBusy from None
        finally:
            sequencer.drop(pending_id, place)
        return await self._run(_finish, steps, LogBusy)

    def close(self) -> None:
        """End the threads once nothing is asked any more."""
        self._threads.shutdown()

    async def _run(self, step: Callable[[Steps], _T], steps: Steps, none_free: type[DatabaseBusy | LogBusy]) -> _T:
        taken: Future[_T] = self._threads.submit(copy_context().run, step, steps)
        done = asyncio.wrap_future(taken)
        try:
            await asyncio.wait([done], timeout=_FREE_WITHIN_S)
        finally:
            never_begun = taken.cancel()
        if never_begun:
            raise none_free
        return await done


def _finish(steps: Steps) -> bytes:
    try:
        next(steps)
    except StopIteration as finished:
        answer: bytes = finished.value
        return answer
    raise AssertionError("an answer waits for one checkpoint")
