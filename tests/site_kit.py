"""A whole installation, as `twinvault operator init` makes it, and the app over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from twinvault.cli import main
from vault.app import create_app
from vault.clock import SystemClock
from vault.ops import archive
from vault.ops.site import Site, set_up
from vault.settings import AppSettings, WorkerSettings
from vault.twin.children import Children
from vault.worker import open_worker, run_once

ISSUER = "http://127.0.0.1:8400"
ORIGIN = "log.example/site"


def make_site(folder: Path) -> Site:
    site = Site(folder)
    set_up(site, issuer=ISSUER, log_origin=ORIGIN, database_url=None, shortkeys_url=None, now=SystemClock().now())
    return site


def operate(arguments: Sequence[str]) -> Result:
    """Run `twinvault operator` as a shell does, with what it says and its exit status."""
    shell = typer.Typer()
    shell.command()(lambda: main(["operator", *arguments]))
    return CliRunner().invoke(shell, [])


def restore(site: Site, backup: Path) -> dict[str, Any]:
    """Put a backup back over the site as the operator does, and return what the command says it did."""
    result = operate(["restore", str(backup), "--site", str(site.folder), "--replace", "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return dict(json.loads(result.stdout))


def put_back_by_hand(site: Site, backup: Path) -> None:
    """Put the backup's SQLite file back without the command, as an operator in a hurry might."""
    database, short_keys = site.databases()
    archive._put_sqlite(backup / "vault.sqlite", database)
    assert site.anchor is not None
    site.anchor.delete()
    for opened in (database, short_keys):
        opened.close()


def app_settings(site: Site) -> AppSettings:
    """Read the app's settings from its file alone; a busy machine must not make the log late for a test."""
    return AppSettings.model_validate({"checkpoint_wait_s": "60", **_settings(site, "app")})


def worker_settings(site: Site) -> WorkerSettings:
    """Read the worker's settings from its file alone."""
    return WorkerSettings.model_validate(_settings(site, "worker"))


def _settings(site: Site, process: str) -> dict[str, str]:
    return {name.removeprefix("VAULT_").lower(): value for name, value in site.environment(process).items()}


@contextmanager
def running_app(site: Site) -> Iterator[TestClient]:
    """Start the app in this process; requests go through every layer of it."""
    with TestClient(create_app(app_settings(site)), base_url=ISSUER, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def working(site: Site) -> Iterator[Callable[[], None]]:
    """Open a worker in this process; what is given does every job that waits."""
    with Children() as children, open_worker(worker_settings(site), children, SystemClock()) as worker:

        def work() -> None:
            while run_once(worker):
                pass

        yield work
