"""Waits that end: until something is so, or until calls that run at once are done; past the bound each fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from sqlalchemy import text

from vault.db import Database

T = TypeVar("T")

_BOUND_S = 240  # A busy machine starts a service's three processes in this time; only what is broken waits so long.


def until(ask: Callable[[], T | None], what: str, *, bound_s: float = _BOUND_S) -> T:
    """Ask again and again; return the first answer that counts as true.

    Args:
        ask: Called every few milliseconds.
        what: What is waited for, to say so when it does not come.
        bound_s: After how many seconds it is taken not to come.
    """
    deadline = time.monotonic() + bound_s
    while not (found := ask()):
        assert time.monotonic() < deadline, f"this did not happen within {bound_s} seconds: {what}"
        time.sleep(0.02)
    return found


def until_alone(database: Database) -> None:
    """Wait until a PostgreSQL database has no connection but ours: a client that was killed may still be committing.

    SQLite's clients commit in their own process, so with that their last commit is over.
    """
    if database.is_sqlite:
        return
    database.close()  # our own connections too, but for the one that asks
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def alone() -> bool:
        with database.snapshot() as session:
            return not session.connection().execute(others).scalar_one()

    until(alone, "the server notices that every other client is gone")


def together(*calls: Callable[[], Any], refusals: type[Exception] | tuple[type[Exception], ...] = ()) -> list[Any]:
    """Run all at once in threads; return what each returned, in order, or which of `refusals` it raised.

    Whatever else a call raises is raised here.
    """
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait(_BOUND_S)
        try:
            return call()
        except refusals as refusal:
            return refusal

    pool = ThreadPoolExecutor(len(calls))
    running = [pool.submit(run, call) for call in calls]
    pool.shutdown(wait=False)  # a call that never returns must not keep the test from saying so
    _, waiting = wait(running, _BOUND_S)
    assert not waiting, f"{len(waiting)} of {len(calls)} calls did not return within {_BOUND_S} seconds"
    return [one.result() for one in running]
