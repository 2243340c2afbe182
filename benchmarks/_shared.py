"""Where the public data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("TWINVAULT_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()


def data_folder(name: str) -> Path:
    """Return the folder of a public data set.

    Raises:
        SystemExit: It is not there.
    """
    folder = SHARED / "data" / name
    if not folder.is_dir():
        raise SystemExit(f"{folder} does not exist: set TWINVAULT_SHARED to the folder that holds data/{name}.")
    return folder
