"""Restores in a process of its own and dies by SIGKILL at a point. `python -m tests.ops.restore_child SITE BACKUP POINT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from vault.clock import SystemClock
from vault.ops import archive
from vault.ops.site import Site
from vault.parties import restoring
from vault.store import shortkeys


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def main(site: str, backup: str, point: str) -> None:
    match point:
        case "put back":
            archive.migrate = _die
        case "ended":
            archive.recover = _die
        case "repeated":
            restoring.companies.set_status = _die
        case "committed":
            shortkeys.delete_scheduled = _die
    archive.restore(Path(backup), Site(Path(site)), replace=True, now=SystemClock().now())
    raise SystemExit(f"not reached: {point}")


if __name__ == "__main__":
    main(*sys.argv[1:])
