"""One thread for each process's numbers, however the process was started."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """Let BLAS and torch compute in the thread that calls them.

    A product of a hundred texts or a year of rows is over in less time than other threads take to wake up; they then
    go on spinning, for ten times as long as the answer takes, where other answers and other processes compute.
    """
    torch.set_num_threads(1)  # which holds for every thread that computes with torch
    threadpool_limits(1, user_api="blas")
