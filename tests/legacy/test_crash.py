"""The real app process, killed with SIGKILL in the middle of each step of a legacy, and started again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.http_kit import House, new_databases
from tests.legacy.app_child import DAYS, POINT
from tests.process_kit import Process, app_process
from tests.waiting import until
from twinvault.api import Unreachable
from twinvault.executor import Executor
from vault.clock import SystemClock
from vault.encoding import b64u
from vault.parties import people, sessions
from vault.parties.people import VaultState
from vault.seal.ids import VaultId
from vault.seal.legacy import Choice

pytestmark = pytest.mark.slow


@dataclass
class Mortal:
    """The app and its clients, all of them some days from now; it dies where it is told to."""

    running: Process
    house: House
    days: int = 0

    def now(self) -> datetime:
        return SystemClock().now() + timedelta(days=self.days)

    def start(self, point: str = "", *, wait: bool = True) -> None:
        self.running.environment = {DAYS: str(self.days), POINT: point}
        if wait:
            self.running.start()
        else:
            self.running.launch()

    def died(self) -> None:
        assert self.running.child is not None
        assert self.running.child.wait(120) == -signal.SIGKILL

    def dies_at(self, point: str, act: Callable[[], object]) -> None:
        """Let it die in the middle of what a client asks for, and start it again."""
        self.running.kill()
        self.start(point)
        with pytest.raises(Unreachable):
            act()
        self.died()
        self.start()

    @property
    def steps(self) -> list[str]:
        """Return what came after the plan."""
        with self.house.database.snapshot() as session:
            kinds = session.connection().exec_driver_sql("SELECT kind FROM log_entry ORDER BY id").scalars()
            return [kind for kind in kinds if kind in {"freeze", "erasure"} or kind.startswith("legacy-")][1:]

    def state(self, vault: VaultId) -> VaultState:
        with self.house.database.snapshot() as session:
            return people.get(session, vault).state


@pytest.fixture(params=["sqlite", "postgresql"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mortal]:
    urls: tuple[str | None, str | None] = (None, None)
    if request.param == "postgresql":
        urls = new_databases(request.getfixturevalue("postgresql_server"))
    with app_process(tmp_path, *urls) as (running, house):
        running.module = "tests.legacy.app_child"
        yield Mortal(running, house)


def test_kill_minus_nine_leaves_each_step_done_or_not_begun(mortal: Mortal) -> None:
    house = mortal.house
    owner = house.owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ERASE)
    two = Executor(shares, house.api(), mortal)
    with house.database.transaction() as session:
        sessions.end_sessions(session, owner.vault)
    mortal.dies_at("declared, not committed", two.declare)
    assert (two.look().state, mortal.steps) == ("ready", [])
    mortal.dies_at("declared, nobody told", two.declare)
    assert (two.look().state, mortal.steps) == ("waiting", ["legacy-claim"])
    mortal.running.kill()
    mortal.days = 7
    mortal.start("half in force", wait=False)
    mortal.died()
    assert (mortal.state(owner.vault), mortal.steps) == (VaultState.ACTIVE, ["legacy-claim"])
    mortal.start()
    until(lambda: two.look().state == "in-force", "what a crash kept from taking effect takes effect")
    in_force = ["legacy-claim", "legacy-force", "freeze"]
    assert (mortal.state(owner.vault), mortal.steps) == (VaultState.FROZEN, in_force)
    mortal.dies_at("half vetoed", owner.consents)
    assert (two.look().state, mortal.steps) == ("in-force", in_force), "an owner who got no session signs in again"
    claim = two.look().claim
    assert two.bundle()[1].failures == ()
    mortal.dies_at("erased, keys not gone", two.erase)
    assert mortal.steps == [*in_force, "erasure"]
    with house.database.snapshot() as session:
        assert session.connection().exec_driver_sql("SELECT * FROM short_key_deletion").all() == []
    kept = house.http.get(f"/v1/erasures/{b64u(claim)}")
    assert kept.status_code == 200, "the certificate lies under the claim's id"
