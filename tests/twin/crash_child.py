"""A worker process that stops at a given point until it is killed; run as a script."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from vault.settings import WorkerSettings
from vault.twin import refresh as refreshing
from vault.twin.children import Children
from vault.worker import open_worker, run_once


class Later:
    """The tests' clock: the twelfth of 23 November 2026."""

    def now(self):
        from tests.vault_kit import NOW

        return NOW


def stop_here(*_arguments: object) -> None:
    sys.stdout.write("reached\n")
    sys.stdout.flush()
    time.sleep(600)


def before(name: str) -> None:
    """Stop before a step of the refresh."""
    setattr(refreshing, name, stop_here)


def after_noise() -> None:
    """Stop between noise and store."""
    add_noise = refreshing._add_noise

    def add(group) -> None:
        add_noise(group)
        stop_here()

    refreshing._add_noise = add


def inside_commit() -> None:
    """Stop inside the transaction that stores, after rows and leaves were written."""
    release = refreshing._release

    def write(*arguments: object) -> int:
        count = release(*arguments)
        stop_here()
        return count

    refreshing._release = write


def after_commit() -> None:
    """Stop after the rows are committed and before the job is finished."""
    store = refreshing._store

    def stored(*arguments: object):
        outcomes = store(*arguments)
        stop_here()
        return outcomes

    refreshing._store = stored


POINTS = {
    "before reserve": lambda: before("_reserve"),
    "before open": lambda: before("_open"),
    "after noise": after_noise,
    "inside commit": inside_commit,
    "after commit": after_commit,
    "nowhere": lambda: None,
}

if __name__ == "__main__":
    POINTS[sys.argv[1]]()
    with Children() as children, open_worker(WorkerSettings(), children, Later()) as worker:
        run_once(worker)
        sys.stdout.write("done\n")
