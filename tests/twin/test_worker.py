"""The worker process: killed anywhere it releases nothing twice; it refuses keys that are not its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy

from tests.leaves import leaves
from tests.twin.crash_child import POINTS
from tests.twin.worker_kit import OCTOBER, RETAIL, FixedClock, TwinWorld
from tests.vault_kit import NOW
from vault import worker as processes
from vault.budget import ledger
from vault.budget.charge import owner_day
from vault.db import Database, DatabaseBusy
from vault.encoding import b64u
from vault.imprint.block import DAILY, LATE
from vault.imprint.features import Cadence, mapped_for
from vault.jobs import queue
from vault.jobs.queue import JobState
from vault.keys import statements
from vault.keys.identities import open_identity
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import Keyrings, make_keyrings
from vault.seal.ids import ConsentId, new_id
from vault.seal.statement import KeyName
from vault.settings import WorkerSettings
from vault.twin import release, requests
from vault.twin.children import Children
from vault.worker import LEASE_S, WrongKeys, open_worker, run_once, schedule

Run = Callable[["Site"], int]
ROOT = Path(__file__).parents[2]
BREAD = RETAIL.codes[0]


@dataclass
class Site:
    """A vault with a closed October, the worker's real keyring, and its settings."""

    world: TwinWorld
    keyrings: Keyrings
    environment: dict[str, str]

    @property
    def settings(self) -> WorkerSettings:
        names = {name.removeprefix("VAULT_").lower(): value for name, value in self.environment.items()}
        return WorkerSettings(**names)

    def enqueue(self) -> None:
        with self.world.database.transaction() as session:
            requests.request_refresh(session, self.world.owner.vault, now=self.world.clock.at)

    def job(self) -> queue.Job:
        with self.world.database.snapshot() as session:
            found = requests.last_refresh(session, self.world.owner.vault)
        assert found is not None
        return found

    def states(self) -> list[str]:
        with self.world.database.snapshot() as session:
            query = sqlalchemy.text("SELECT state FROM budget_ledger WHERE scope = :s ORDER BY position")
            scope = owner_day(self.world.owner.vault, OCTOBER).key
            return list(session.connection().execute(query, {"s": scope}).scalars())

    def releases(self) -> int:
        with self.world.database.snapshot() as session:
            return len([kind for kind, _, _ in leaves(session) if kind == "release"])


def make_site(database: Database, shortkeys: Database, folder: Path) -> Site:
    keyrings = make_keyrings(folder, log_origin="log.example/vault", now=NOW - timedelta(days=2))
    identity = open_identity(keyrings.worker, LocalKeyring(keyrings.worker), "processor/1")
    world = TwinWorld(database, shortkeys, processor=identity)
    world.worker_key = KmsSigner(LocalKeyring(keyrings.worker), "processor-sign/1")  # type: ignore[assignment]
    with database.transaction() as session:
        for statement in keyrings.statements:
            statements.publish(session, statement, keyrings.operator_key)
    environment = {
        "VAULT_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "VAULT_SHORTKEYS_URL": shortkeys.url.render_as_string(hide_password=False),
        "VAULT_OPERATOR_PUBLIC_KEY": b64u(keyrings.operator_key),
        "VAULT_WORKER_KEYRING": str(keyrings.worker),
        "VAULT_POLL_S": "0.05",
        "VAULT_CADENCE": world.cadence,
    }
    return Site(world, keyrings, environment)


@pytest.fixture
def site(database: Database, shortkeys: Database, tmp_path: Path) -> Site:
    return make_site(database, shortkeys, tmp_path / "keys")


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Site:
    return make_site(sqlite_database, shortkeys, tmp_path / "keys")


@pytest.fixture
def run(children: Children) -> Callable[[Site], int]:
    """Start a worker, run its jobs until none is left, and stop it; return how many rounds there were."""

    def until_idle(site: Site) -> int:
        rounds = 0
        with open_worker(site.settings, children, site.world.clock) as worker:
            while run_once(worker):
                rounds += 1
        return rounds

    return until_idle


def start(site: Site, point: str) -> subprocess.Popen[str]:
    script = str(Path(__file__).with_name("crash_child.py"))
    environment = {**site.environment, "PATH": os.environ["PATH"]}
    return subprocess.Popen(
        [sys.executable, script, point], env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


# A process of its own takes seconds to start, so only one of the databases is tried each time.
_KILLED = pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


@_KILLED
@pytest.mark.parametrize("point", [point for point in POINTS if point != "nowhere"])
def test_a_killed_worker_releases_nothing_twice(site: Site, run: Run, point: str) -> None:
    site.world.buy(BREAD)
    site.world.keep_twin()
    site.enqueue()
    with start(site, point) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "reached\n"
        doomed.send_signal(signal.SIGKILL)
    before, charged = site.world.stored(), site.states()
    assert charged == {"before reserve": [], "after commit": ["reserved", "committed"]}.get(point, ["reserved"])
    assert bool(before) is (point == "after commit")

    site.world.clock.at = NOW + timedelta(seconds=LEASE_S + 1)
    assert run(site) == 1
    after = site.world.stored()
    assert len(after) == 2
    assert point != "after commit" or after == before  # the same bytes: no second noise
    assert site.states() == ["reserved", "committed"]
    assert site.releases() == 2
    assert (site.job().state, site.job().reason) == (JobState.DONE, "")


@_KILLED
@pytest.mark.parametrize("point", ["before open", "after noise", "inside commit", "after commit"])
def test_a_killed_worker_makes_no_day_twice(site: Site, run: Run, point: str) -> None:
    site.environment["VAULT_CADENCE"] = site.world.cadence = Cadence.DAILY
    site.world.buy(BREAD)
    site.world.keep_twin()
    site.enqueue()
    with start(site, point) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "reached\n"
        doomed.send_signal(signal.SIGKILL)
    before = site.world.stored()
    assert site.states() == (["reserved", "committed"] if point == "after commit" else ["reserved"])
    site.world.buy(RETAIL.codes[1])  # so that what is tried again has another name
    site.world.clock.at = NOW + timedelta(seconds=LEASE_S + 1)
    assert run(site) == 1
    after = site.world.stored()
    assert [(row.mechanism, row.period) for row in after] == [
        (DAILY, "2026-09"), (LATE, "2026-09"), (DAILY, OCTOBER), (DAILY, "2026-11"),
    ]  # fmt: skip
    assert point != "after commit" or after == before  # the same bytes: no second noise
    # October's first name paid and was never stored; the second one cost nothing.
    assert site.states() == (["reserved", "committed"] if before else ["reserved", "reserved", "committed"])
    with site.world.database.snapshot() as session:
        assert ledger.spending(session, site.world.owner.vault, OCTOBER, 1e-6).day <= 3.0


def test_the_process_runs_until_it_is_told_to_stop(lite: Site) -> None:
    lite.world.buy(BREAD)
    lite.world.keep_twin(not_after=int(NOW.timestamp()) + 3650 * 86_400)
    environment = {**lite.environment, "PATH": os.environ["PATH"]}
    running = subprocess.Popen(
        [sys.executable, "-m", "vault.worker"], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    with running:
        assert running.stderr is not None
        lines = []
        for line in running.stderr:
            lines.append(line)
            if "refreshed" in line or "scheduled" in line:
                break
        running.send_signal(signal.SIGTERM)
        lines += list(running.stderr)
    assert running.returncode == 0, "".join(lines)
    assert "worker stopped" in lines[-1]
    assert b64u(lite.world.owner.vault) not in "".join(lines)


def test_a_keyring_with_other_keys_is_refused(lite: Site, children: Children, tmp_path: Path) -> None:
    other = make_keyrings(tmp_path / "other", log_origin="log.example/vault", now=NOW - timedelta(days=2))
    wrong = lite.settings.model_copy(update={"worker_keyring": other.worker})
    with pytest.raises(WrongKeys), open_worker(wrong, children, FixedClock()):
        pass


def test_a_worker_whose_keys_the_operator_never_stated_is_refused(
    sqlite_database: Database, shortkeys: Database, tmp_path: Path, children: Children
) -> None:
    site = make_site(sqlite_database, shortkeys, tmp_path / "keys")
    before = FixedClock(NOW - timedelta(days=3))  # they are not in force yet
    with pytest.raises(WrongKeys), open_worker(site.settings, children, before):
        pass


def test_starting_puts_rules_and_the_shipped_models_in_force_once(lite: Site, run: Run) -> None:
    for _ in range(2):
        run(lite)
    with lite.world.database.snapshot() as session:
        kinds = [kind for kind, _, _ in leaves(session)]
        stated = statements.in_force(session, lite.keyrings.operator_key, NOW)
        found = release.current(session, RETAIL, [stated[KeyName.PROCESSOR_SIGN].public_key], NOW)
    readers, heads = len(mapped_for(Cadence.MONTHLY)), 1
    assert (kinds.count("policy-set"), kinds.count("manifest")) == (1, readers + heads)
    assert (found.manifest.epsilon_ppm, found.manifest.certificate) == (0, None)


def test_many_jobs_are_refreshed_together_and_each_learns_its_own_end(lite: Site, run: Run) -> None:
    lite.world.buy(BREAD)
    lite.world.keep_twin()
    lite.enqueue()
    with lite.world.database.transaction() as session:
        stray = requests.enqueue_refresh(session, lite.world.owner.vault, ConsentId(new_id()), now=NOW)
        unknown = queue.enqueue(session, "dance", {}, waiting_key="dance", now=NOW)
    assert stray == lite.job().id  # one refresh of one vault waits
    assert run(lite) == 2
    assert len(lite.world.stored()) == 2
    with lite.world.database.snapshot() as session:
        refused = queue.find(session, unknown)
    assert refused is not None
    assert (refused.state, refused.reason) == (JobState.QUEUED, "unknown-job")


def test_a_refused_refresh_says_why(lite: Site, run: Run) -> None:
    version = lite.world.keep_twin()
    lite.enqueue()
    lite.world.withdraw(version)
    assert run(lite) == 1
    assert (lite.job().state, lite.job().reason) == (JobState.DONE, "consent-not-active")
    with pytest.raises(requests.NoSelfConsent):
        lite.enqueue()


def test_a_defect_fails_the_jobs_and_not_the_worker(lite: Site, run: Run, monkeypatch) -> None:
    lite.world.keep_twin()
    lite.enqueue()

    def defect(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(processes, "refresh", defect)
    assert run(lite) == 1
    assert (lite.job().state, lite.job().reason) == (JobState.QUEUED, "ZeroDivisionError")


def test_the_schedule_asks_once_for_each_month_that_closed(lite: Site) -> None:
    lite.world.keep_twin(not_after=int(NOW.timestamp()) + 365 * 86_400)

    def due(days: float) -> int:
        with lite.world.database.transaction() as session:
            return schedule(session, NOW + timedelta(days=days))

    def finish() -> None:
        with lite.world.database.transaction() as session:
            (job,) = queue.claim(session, now=NOW + timedelta(days=365), lease_s=60)
            queue.finish(session, job)

    assert due(0) == 1
    finish()
    assert due(0.1) == 0
    assert due(8) == 0  # 1 December: November is not closed yet
    assert due(10) == 1
    finish()
    assert due(11) == 0


def test_with_daily_rows_the_schedule_asks_once_a_day_when_one_closed(lite: Site) -> None:
    lite.world.keep_twin(not_after=int(NOW.timestamp()) + 365 * 86_400)
    midnight = timedelta(hours=11)  # from NOW to the next one in Berlin

    def due(after: timedelta) -> int:
        with lite.world.database.transaction() as session:
            found = schedule(session, NOW + after, Cadence.DAILY)
            if found:
                (job,) = queue.claim(session, now=NOW + after, lease_s=60)
                queue.finish(session, job)
        return found

    moments = [timedelta(0), timedelta(hours=10), midnight, timedelta(hours=34), midnight + timedelta(days=1)]
    assert [due(after) for after in moments] == [1, 0, 1, 0, 1]


def test_a_twin_that_nobody_may_keep_is_not_scheduled(lite: Site) -> None:
    lite.world.keep_twin(purposes=frozenset({"dpv:Marketing"}))
    lite.world.withdraw(lite.world.keep_twin())
    with lite.world.database.transaction() as session:
        assert schedule(session, NOW) == 0


def test_a_lease_is_renewed_while_its_jobs_run(lite: Site, children: Children, monkeypatch) -> None:
    lite.world.keep_twin()
    lite.enqueue()
    renewed = threading.Event()
    monkeypatch.setattr(processes, "LEASE_S", 0.2)
    monkeypatch.setattr(queue, "renew", lambda *_, **__: renewed.set())
    monkeypatch.setattr(processes, "_run", lambda *_: renewed.wait(20))
    with open_worker(lite.settings, children, lite.world.clock) as worker:
        assert run_once(worker)
    assert renewed.is_set()


def test_a_lease_that_could_not_be_renewed_once_is_renewed_the_next_time(
    lite: Site, children: Children, monkeypatch
) -> None:
    """A database that was away for a moment must not hand the jobs to a second worker."""
    lite.world.keep_twin()
    lite.enqueue()
    renewed, faults = threading.Event(), iter([DatabaseBusy(), ConnectionError()])

    def renew(*_arguments: object, **_more: object) -> None:
        for fault in faults:
            raise fault
        renewed.set()

    monkeypatch.setattr(processes, "LEASE_S", 0.2)
    monkeypatch.setattr(queue, "renew", renew)
    monkeypatch.setattr(processes, "_run", lambda *_: renewed.wait(20))
    with open_worker(lite.settings, children, lite.world.clock) as worker:
        assert run_once(worker)
    assert renewed.is_set()
