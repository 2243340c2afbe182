"""A backup from before a sign of life does not let a declaration go on; one from before a death does not forget it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.http_kit import await_sequencer, serving
from tests.site_kit import restore
from twinvault.executor import Executor
from vault.clock import SystemClock
from vault.db import Database
from vault.legacy import legacies, steps
from vault.legacy.steps import LegacyState
from vault.ops.archive import back_up
from vault.ops.site import Site
from vault.parties import people, sessions
from vault.parties.people import VaultState
from vault.seal.legacy import Choice


def test_a_sign_of_life_since_the_backup_still_counts(tmp_path: Path) -> None:
    with serving(tmp_path / "house") as house:
        owner, site = house.owner(), house.service.site
        shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
        with house.database.transaction() as session:
            sessions.end_sessions(session, owner.vault)
        Executor(shares, house.api(), SystemClock()).declare()
        back_up(site, tmp_path / "backup")
        owner.history()
    restore(site, tmp_path / "backup")
    with opened(site) as database, database.snapshot() as session:
        found = steps.find(session, owner.vault)
    assert found is not None
    assert found.state is LegacyState.ENDED


@pytest.mark.parametrize("back", [False, True], ids=["gone", "back"])
def test_that_executors_said_a_person_died_is_not_forgotten_unless_the_person_came_back(
    tmp_path: Path, back: bool
) -> None:
    with serving(tmp_path / "house") as house:
        owner, site = house.owner(), house.service.site
        shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ANSWER)
        back_up(site, tmp_path / "backup")
        with house.database.transaction() as session:
            sessions.end_sessions(session, owner.vault)
        Executor(shares, house.api(), SystemClock()).declare()
        assert legacies.take_effect_due(house.database, now=SystemClock().now() + timedelta(days=8)) == 1
        if back:
            owner.history()
        await_sequencer(house.database)
    for _ in range(2):  # as often as it takes
        restore(site, tmp_path / "backup")
        with opened(site) as database, database.snapshot() as session:
            person = people.get(session, owner.vault)
        assert (person.profile.deceased, person.state) == (not back, VaultState.ACTIVE)


def test_what_its_plan_alone_froze_since_the_backup_is_known_for_that(tmp_path: Path) -> None:
    """Else nobody living could unfreeze it once executors have declared."""
    with serving(tmp_path / "house") as house:
        owner, site = house.owner(), house.service.site
        owner.legacy.plan(threshold=2, shares=2, waiting_days=7, inactive_days=100, choice=Choice.ANSWER)
        back_up(site, tmp_path / "backup")
        for days in (101, 109):
            legacies.take_effect_due(house.database, now=SystemClock().now() + timedelta(days=days))
        await_sequencer(house.database)
    restore(site, tmp_path / "backup")
    with opened(site) as database, database.transaction() as session:
        row = steps.read(session, owner.vault)
        assert people.get(session, owner.vault).state is VaultState.FROZEN
    assert row is not None
    assert row.froze


@contextmanager
def opened(site: Site) -> Iterator[Database]:
    database, short_keys = site.databases()
    with closing(database), closing(short_keys):
        yield database
