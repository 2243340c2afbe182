"""A backup from before a sign of life does not let a declaration go on."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from tests.http_kit import serving
from twinvault.executor import Executor
from vault.clock import SystemClock
from vault.legacy import steps
from vault.legacy.steps import LegacyState
from vault.ops import operator
from vault.ops.archive import back_up
from vault.parties import sessions


def test_a_sign_of_life_since_the_backup_still_counts(tmp_path: Path) -> None:
    with serving(tmp_path / "house") as house:
        owner, site = house.owner(), house.service.site
        shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
        with house.database.transaction() as session:
            sessions.end_sessions(session, owner.vault)
        Executor(shares, house.api(), SystemClock()).declare()
        back_up(site, tmp_path / "backup")
        owner.history()
    said = CliRunner().invoke(
        operator, ["restore", str(tmp_path / "backup"), "--site", str(site.folder), "--replace", "--json"]
    )
    assert said.exit_code == 0, (said.output, said.exception)
    database, short_keys = site.databases()
    with database.snapshot() as session:
        found = steps.find(session, owner.vault)
    assert found is not None
    assert found.state is LegacyState.ENDED
    database.close()
    short_keys.close()
