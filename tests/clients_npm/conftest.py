"""The second verifier, compiled once for all tests that ask it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "clients/web/verify"


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second verifier, checked strictly and compiled."""
    folder = tmp_path_factory.mktemp("verify") / "verify"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(npm, cwd=folder, check=True, timeout=300)
    assert '"strict": true' in (folder / "tsconfig.json").read_text()
    for how in (["--noEmit"], []):
        compiled = subprocess.run(
            ["npx", "--no-install", "tsc", *how], cwd=folder, check=False, capture_output=True, timeout=300
        )
        assert compiled.returncode == 0, compiled.stdout.decode()
    return folder / "dist"
