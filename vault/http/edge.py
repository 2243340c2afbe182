"""What routes take from the app: its database, its clock, a raw body.

Dependencies that do not wait are `async`: FastAPI would run each of them in a thread of its own, which
costs a request more than all that they do.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from vault.clock import Clock
from vault.db import Database


async def _database(request: Request) -> Database:
    database = request.app.state.database
    assert isinstance(database, Database)
    return database


async def _clock(request: Request) -> Clock:
    clock: Clock = request.app.state.clock
    return clock


async def _raw_body(request: Request) -> bytes:
    return await request.body()


DatabaseDep = Annotated[Database, Depends(_database)]
ClockDep = Annotated[Clock, Depends(_clock)]
RawBody = Annotated[bytes, Depends(_raw_body)]
