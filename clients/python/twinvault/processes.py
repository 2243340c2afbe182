"""Verifying in several processes: pure checks go out in chunks, and what they found comes back in order."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, resource_tracker
from types import TracebackType
from typing import Final, Self, TypeVar

from twinvault.api import ClientError

CHUNK: Final = 256
_AHEAD: Final = 2  # chunks waiting for each process, so that none is idle, and no more is held than that

_T = TypeVar("_T")
_R = TypeVar("_R")


class ProcessDied(ClientError):
    """A process ended before it had said what it found; nothing is known about what it was to check."""

    slug = "process-died"
    title = "A verifying process ended"

    def __init__(self) -> None:
        super().__init__(
            "A process that verified ended before it was done, so nothing is proven: there may be too little memory. "
            "Run it again, with --processes 1 if it happens again."
        )


class Processes:
    """Applies pure functions like `map`, in several processes; in this one where that is not worth it.

    Args:
        count: How many; 1 for this one alone.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, check: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
        """Yield what a function returns for each item, in their order.

        Args:
            check: A function of a module, which needs nothing but its item.
            items: Looked at only a few chunks ahead of what is yielded.

        Raises:
            ProcessDied: A process ended before its time. What was yielded before holds; the rest is unknown.
            Exception: Whatever the function raises.
        """
        left = iter(items)
        chunk = list(islice(left, CHUNK))
        if self._count == 1 or len(chunk) < CHUNK:
            yield from map(check, chunk)
            yield from map(check, left)
            return
        waiting: deque[Future[list[_R]]] = deque()
        try:
            while chunk:
                waiting.append(self._submit(check, chunk))
                if len(waiting) == _AHEAD * self._count:
                    yield from waiting.popleft().result()
                chunk = list(islice(left, CHUNK))
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise ProcessDied from None

    def _submit(self, check: Callable[[_T], _R], chunk: list[_T]) -> Future[list[_R]]:
        if self._pool is None:
            resource_tracker.ensure_running()  # to start it would lift the block that follows
            # Anew and not as copies of this process: threads and locks of whoever embeds this would come along.
            self._pool = ProcessPoolExecutor(self._count, get_context("spawn"))
        # A process that this starts inherits it for good: a terminal interrupts all, and this one alone ends the others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(_check_all, check, chunk)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_all(check: Callable[[_T], _R], chunk: list[_T]) -> list[_R]:
    return list(map(check, chunk))
