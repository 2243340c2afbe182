"""A refusal that names nothing takes no telling time either.

A consent that does not exist is refused after one look-up, one whose person may not be asked about after all of
them, a decision and an encrypted record. Both leave at the next tick of one beat after the question came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from vault.policy.permits import Forbidden
from vault.proof.decision import NOT_PERMITTED

# Several times what the slowest refusal takes; one that takes longer waits for the next tick.
BEAT_S: Final = 0.05


@asynccontextmanager
async def even_refusals() -> AsyncIterator[None]:
    """Hold back a `not-permitted` until the next tick, counted from the start of the block.

    Guarantees: when it leaves depends on the work done before only through the number of whole beats.
    """
    started_s = time.monotonic()
    try:
        yield
    except Forbidden as refusal:
        if refusal.slug == NOT_PERMITTED:
            elapsed_s = time.monotonic() - started_s
            await asyncio.sleep(BEAT_S - elapsed_s % BEAT_S)
        raise
