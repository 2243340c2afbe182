"""Clerks: the few threads that decide on questions and prove answers, one step after the other.

A question that waits for its checkpoint holds no thread. Where each had one, those who had the database's turn
fought for the interpreter with those who had yet to decide, and everybody waited for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import count
from queue import PriorityQueue
from threading import Thread
from typing import Any, Final, TypeAlias, TypeVar

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


class _Turn(IntEnum):
    """What goes first: proving takes a sixth of the time that deciding takes, and ends somebody's wait."""

    PROVE = 0
    DECIDE = 1
    CLOSE = 2


@dataclass(order=True, slots=True)
class _Task:
    turn: _Turn
    arrival: int
    step: Callable[[], Any] = field(compare=False)
    taken: Future[Any] = field(compare=False)


class Clerks:
    """The threads of one process that answer.

    Args:
        database: Whose writers they are.
    """

    def __init__(self, database: Database) -> None:
        self._arrival = count()
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._count = _ON_SQLITE if database.is_sqlite else _ON_POSTGRESQL
        self._threads: list[Thread] = []

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
        pending_id = await self._run(_Turn.DECIDE, next, steps, DatabaseBusy)
        place = sequencer.follow(pending_id)
        try:
            await asyncio.wait_for(asyncio.wrap_future(place), timeout_s)
        except TimeoutError:
            raise LogBusy from None
        finally:
            sequencer.drop(pending_id, place)
        return await self._run(_Turn.PROVE, _finish, steps, LogBusy)

    def close(self) -> None:
        """End the threads once nothing is asked any more."""
        for _ in self._threads:
            self._submit(_Turn.CLOSE, lambda: None)
        for thread in self._threads:
            thread.join()

    def _submit(self, turn: _Turn, step: Callable[[], _T]) -> Future[_T]:
        while len(self._threads) < self._count:  # at the first question: none runs in a process that may yet fork
            self._threads.append(Thread(target=self._work, name=f"clerk-{len(self._threads)}", daemon=True))
            self._threads[-1].start()
        taken: Future[_T] = Future()
        self._tasks.put(_Task(turn, next(self._arrival), step, taken))
        return taken

    def _work(self) -> None:
        while (task := self._tasks.get()).turn is not _Turn.CLOSE:
            if not task.taken.set_running_or_notify_cancel():
                continue
            try:
                task.taken.set_result(task.step())
            except BaseException as error:  # noqa: BLE001  whoever waits for it raises it
                task.taken.set_exception(error)
            del task  # what it holds may be secret, and the next one may be long in coming

    async def _run(
        self, turn: _Turn, step: Callable[[Steps], _T], steps: Steps, none_free: type[DatabaseBusy | LogBusy]
    ) -> _T:
        taken = self._submit(turn, partial(copy_context().run, step, steps))
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
