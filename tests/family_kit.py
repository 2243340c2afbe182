"""A served house whose clock a test moves, an owner in it, executors with their own clients, and what they wait for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.http_kit import PURCHASE, House
from tests.waiting import until
from twinvault.executor import Executor
from twinvault.owner import Owner
from twinvault.shares import Share, dump_share, parse_share
from vault.clock import SystemClock
from vault.db import Database
from vault.parties.sessions import SESSION_S
from vault.schema.terms import ConsentKind
from vault.seal.ids import new_id

DAY = timedelta(days=1)
SESSION = timedelta(seconds=SESSION_S)


@dataclass
class Moved:
    """A clock that a test moves."""

    by: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return SystemClock().now() + self.by


@dataclass
class Family:
    """A house whose clock moves, an owner in it and whoever holds shares."""

    house: House
    clock: Moved

    def owner(self) -> Owner:
        made, _ = Owner.init(
            self.house.folder / new_id().hex(), self.house.service.trust, passphrase=None, categories=[PURCHASE],
            api=self.house.api(), clock=self.clock,
        )  # fmt: skip
        made.give(made.terms_for(ConsentKind.SELF, [PURCHASE]))
        return made

    def executor(self, *shares: Share) -> Executor:
        return Executor([parse_share(dump_share(share)) for share in shares], self.house.api(), self.clock)


def wait_for(state: str, executor: Executor) -> None:
    until(lambda: executor.look().state == state, f"the plan becomes {state}")


def told(owner: Owner, last: str) -> list[dict[str, Any]]:
    """Return what the owner is told of the legacy, once the log has its last step."""

    def found() -> list[dict[str, Any]] | None:
        shown = [event for event in owner.history() if event["kind"].startswith(("legacy-", "freeze"))]
        return shown if shown and shown[-1]["kind"] == last else None

    return until(found, f"the owner is told of {last}")


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


def waiting_for_locks(database: Database) -> int:
    """Return how many sessions of PostgreSQL wait for a lock."""
    with database.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one())
