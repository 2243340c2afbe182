"""Restores in a process of its own and dies by SIGKILL at a point. `python -m tests.ops.restore_child SITE BACKUP POINT`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.dying import die
from vault.clock import SystemClock
from vault.ops import archive
from vault.ops.site import Site
from vault.parties import restoring
from vault.store import shortkeys


def main(site: str, backup: str, point: str) -> None:
    match point:
        case "put back":
            archive.migrate = die
        case "ended":
            archive.recover = die
        case "repeated":
            restoring.companies.set_status = die
        case "committed":
            shortkeys.delete_scheduled = die
    archive.restore(Path(backup), Site(Path(site)), replace=True, now=SystemClock().now())
    raise SystemExit(f"not reached: {point}")


if __name__ == "__main__":
    main(*sys.argv[1:])
