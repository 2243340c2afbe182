"""Remove each guard in a copy of the tree and demand that its test then fails.

A test that passes without the line it is meant to watch watches nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARDS = Path(__file__).with_name("guards.toml")
_SKIP = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "node_modules", "dist")


@dataclass(frozen=True)
class Guard:
    """One line that stops an attack, what removes it, and the test that must then fail."""

    name: str
    invariant: int
    file: str
    find: str
    put: str
    test: str


def load() -> list[Guard]:
    """Return every guard listed in guards.toml."""
    return [Guard(**entry) for entry in tomllib.loads(GUARDS.read_text())["guard"]]


def complaint(guard: Guard) -> str | None:
    """Say why a guard is not shown to matter, or return None when its test bites.

    Args:
        guard: The entry to try, in a copy of the tree of its own.
    """
    with tempfile.TemporaryDirectory(prefix="unguard-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=_SKIP, symlinks=True)
        target = tree / guard.file
        if not target.is_file() or target.read_text().count(guard.find) != 1:
            return "its `find` text does not occur exactly once"
        target.write_text(target.read_text().replace(guard.find, guard.put))
        environment = {
            **os.environ,
            "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'clients/python'}",
            "TWINVAULT_SHARED": os.environ.get("TWINVAULT_SHARED", str((ROOT / ".." / "shared").resolve())),
        }
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", guard.test],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if run.returncode == 1 and " failed" in run.stdout:
            return None
        last = (run.stdout + run.stderr).strip().splitlines()[-1:]
        return f"its test did not fail (pytest exit {run.returncode}: {' '.join(last)})"


def main() -> int:
    """Try all guards, two at a time, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only guards whose name contains one of these")
    wanted = parser.parse_args().names
    guards = [guard for guard in load() if not wanted or any(word in guard.name for word in wanted)]
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for guard, found in zip(guards, pool.map(complaint, guards), strict=True):
            print(f"{'ok  ' if found is None else 'FAIL'} [{guard.invariant}] {guard.name}" + (f": {found}" if found else ""), flush=True)  # noqa: E501, T201
            failures += found is not None
    print(f"{len(guards) - failures} passed, {failures} failed")  # noqa: T201
    return 1 if failures or not guards else 0


if __name__ == "__main__":
    sys.exit(main())
