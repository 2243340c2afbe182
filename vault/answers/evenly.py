"""A refusal that names nothing takes no telling time either.

A consent that does not exist is refused after one look-up, one whose person may not be asked about after all of
them, a decision and an encrypted record. Both leave at the next tick of one beat, which is counted from when work on
the question began: after a wait of any length for a free clerk, ticks would fall anywhere within that work and tell it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from vault.policy.permits import Forbidden
from vault.proof.decision import NOT_PERMITTED

# Several times what the slowest refusal takes; one that takes longer waits for the next tick.
BEAT_S: Final = 0.05


@asynccontextmanager
async def even_refusals() -> AsyncIterator[Callable[[], None]]:
    """Hold back a `not-permitted` until the next tick.

    Yields:
        What to call, from any thread, when work on the question begins; else the block's start counts.

    Guarantees: when it leaves depends on the work done since then only through the number of whole beats.
    """
    started_s = time.monotonic()

    def begin() -> None:
        nonlocal started_s
        started_s = time.monotonic()

    try:
        yield begin
    except Forbidden as refusal:
        if refusal.slug == NOT_PERMITTED:
            elapsed_s = time.monotonic() - started_s
            await asyncio.sleep(BEAT_S - elapsed_s % BEAT_S)
        raise
