"""Rolls keys over in a process of its own and dies by SIGKILL at a chosen point. `python -m tests.ops.rollover_child SITE POINT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.dying import die, then_die
from tests.site_kit import app_settings, worker_settings
from vault import app as app_module
from vault.clock import SystemClock
from vault.consent import reseals
from vault.keys import operator as operator_keys
from vault.keys import rollover
from vault.keys.kms import LocalKeyring
from vault.ops import operator
from vault.ops.site import Site
from vault.store import shortkeys
from vault.twin.children import Children
from vault.worker import follow_keys, open_worker


def rotate(site: Site) -> None:
    for name in ("serving", "processor", "service", "processor-sign"):
        with suppress(operator_keys.RolloverUnderway):  # the one before is not over: that is what is tried here
            CliRunner().invoke(operator, ["keys", "rotate", name, "--site", str(site.folder)], catch_exceptions=False)


def follow_as_app(site: Site) -> None:
    app = app_module.create_app(app_settings(site))
    app_module.follow_keys(app.state)
    app.state.database.close()
    app.state.shortkeys.close()


def follow_as_worker(site: Site) -> None:
    settings = worker_settings(site)
    with Children() as children, open_worker(settings, children, SystemClock()) as worker:
        follow_keys(worker, settings)


POINTS: dict[str, tuple[Callable[[Site], None], Any, str, Callable[..., Any]]] = {
    "key made, not stated": (rotate, operator_keys, "sign_key_statement", die),
    "app inside a reseal": (follow_as_app, reseals, "put", then_die(reseals.put)),
    "app before the old short keys go": (follow_as_app, shortkeys, "delete_scheduled", die),
    "app with the old key half gone": (follow_as_app, LocalKeyring, "destroy", then_die(LocalKeyring.destroy)),
    "worker inside a reseal": (follow_as_worker, reseals, "put", then_die(reseals.put)),
    "worker with the old key half gone": (follow_as_worker, LocalKeyring, "destroy", then_die(LocalKeyring.destroy)),
}


def main() -> None:
    operator_keys.LEAD_S, rollover.GRACE_S = 0, 0  # type: ignore[misc]  # nobody waits in a test
    site, point = Site(Path(sys.argv[1])), sys.argv[2]
    act, owner, name, instead = POINTS[point]
    setattr(owner, name, instead)
    act(site)
    raise AssertionError("it did not die")


if __name__ == "__main__":
    main()
