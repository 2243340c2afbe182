"""What the supervisor makes and every process of the app inherits: the listening socket, and memory for their counts.

Nothing of the server is imported here: the supervisor serves nobody.
"""

from __future__ import annotations

import mmap
import os
import socket
from typing import Final

_BACKLOG: Final = 2048
_COUNT_BYTES: Final = 4


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; several processes may accept from it.

    Raises:
        OSError: The address is in use, or none of this machine's.
    """
    return socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
    )


class Shares:
    """How many connections each process of the app has, in memory that all of them see.

    Args:
        counts: File descriptor of that memory, from `shared_counts`; None if the app is one process.
        place: This process's number in it, from 0.
    """

    def __init__(self, counts: int | None, place: int) -> None:
        shared = mmap.mmap(-1, _COUNT_BYTES) if counts is None else mmap.mmap(counts, 0)
        self._counts = memoryview(shared).cast("I")
        self._place = place

    def say(self, connections: int) -> None:
        """Say how many this process has."""
        self._counts[self._place] = connections

    @property
    def has_more(self) -> bool:
        """Whether another process has fewer than this one."""
        return self._counts[self._place] > min(self._counts)


def shared_counts(processes: int) -> int:
    """Return the file descriptor of memory for the counts of that many processes, for them to inherit."""
    file = os.memfd_create("connections")
    os.ftruncate(file, processes * _COUNT_BYTES)
    return file
