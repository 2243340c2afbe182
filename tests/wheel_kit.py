"""The wheel as it is shipped: built from the source archive alone, and installed without any extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLEAN = {name: os.environ[name] for name in os.environ.keys() - {"PYTHONPATH", "VIRTUAL_ENV"}}


def run(*command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command away from the repository; it must end with a status."""
    done = subprocess.run(command, cwd="/", env=CLEAN, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def build(folder: Path) -> Path:
    """Make the source archive, and the wheel from it alone; return the folder."""
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    return folder


def install(dist: Path, folder: Path) -> Path:
    """Install the wheel and what its base needs, no extra, into a fresh environment; return its Python."""
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    found = folder / "venv/bin/python"
    wheel = next(dist.glob("*.whl"))
    run(str(found), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return found
