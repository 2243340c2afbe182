"""Serves a site some days from now, and dies by SIGKILL at a chosen point. `python -m tests.legacy.app_child`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from tests.dying import die, then_die
from vault.app import create_app, run
from vault.clock import SystemClock
from vault.legacy import legacies, routes
from vault.parties import people
from vault.settings import AppSettings

DAYS: Final = "TWINVAULT_TEST_DAYS"
POINT: Final = "TWINVAULT_TEST_POINT"


class Later:
    """The clock of some days from now."""

    def now(self) -> datetime:
        return SystemClock().now() + timedelta(days=int(os.environ[DAYS]))


POINTS: Final[dict[str, tuple[Any, str, Callable[..., Any]]]] = {
    "declared, not committed": (legacies, "declare", then_die(legacies.declare)),
    "declared, nobody told": (routes, "_logged", die),
    "half in force": (people, "freeze", then_die(people.freeze)),
    "half vetoed": (legacies, "sign_of_life", then_die(legacies.sign_of_life)),
    "erased, keys not gone": (routes, "acknowledged", die),
}


def main() -> None:
    if point := os.environ[POINT]:
        owner, name, instead = POINTS[point]
        setattr(owner, name, instead)
    settings = AppSettings()
    run(create_app(settings, Later()), settings)


if __name__ == "__main__":
    main()
