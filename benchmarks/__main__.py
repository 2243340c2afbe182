"""Run every benchmark and write docs/benchmarks.md from the JSON that each prints."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import quality

ROOT = Path(__file__).parents[1]
_LIMIT_S = 1500


def commands() -> Iterator[list[str]]:
    """Yield each benchmark's name and arguments; `quality` runs once for each data set."""
    for name in sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")):
        if name == "quality":
            yield from ([name, "--data", data] for data in quality.DATA)
        else:
            yield [name]


def measure(command: list[str], printed: Path) -> dict[str, Any]:
    """Return what one benchmark printed, now or in an earlier run that kept it.

    Args:
        command: Module and arguments.
        printed: The file that keeps it; one that is there already is not measured again.

    Raises:
        CalledProcessError: It did not complete.
    """
    if not printed.exists():
        run = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, timeout=_LIMIT_S, check=True
        )
        printed.write_bytes(run.stdout)
    figures: dict[str, Any] = json.loads(printed.read_bytes())
    return figures


def table(figures: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one Markdown row for each figure, nested keys joined by dots."""
    rows: list[str] = []
    for key, value in figures.items():
        if isinstance(value, dict):
            rows += table(value, f"{prefix}{key}.")
        else:
            rows.append(f"| `{prefix}{key}` | {value} |")
    return rows


def page(folder: Path, *, quick: bool) -> str:
    """Measure what the folder does not keep yet, and return the page.

    Args:
        folder: Keeps what each command printed.
        quick: Whether each takes at most 45 seconds.
    """
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    lines = [
        "# Benchmarks",
        "",
        f"Written by `python -m benchmarks{' --quick' if quick else ''}` ({machine}, 2 shared cores: trust ratios and medians, not absolutes).",
        "Each table is what its command printed at the time named; nothing here was typed by hand.",
    ]
    for name, *arguments in commands():
        command = [f"benchmarks.{name}", *arguments, "--json", *(["--quick"] if quick else [])]
        print(" ".join(command), "...", file=sys.stderr, flush=True)
        title = " ".join([name, *arguments[1:]])
        printed = folder / f"{title.replace(' ', '-')}{'.quick' if quick else ''}.json"
        rows = table(measure(command, printed))
        at = f"{datetime.fromtimestamp(printed.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
        lines += ["", f"## {title}", "", f"`python -m {' '.join(command)}`, {at}", "", "| figure | value |"]
        lines += ["| --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most 45 seconds each")
    parser.add_argument(
        "--keep", type=Path, help="keep what each prints in this folder, and measure only what it lacks"
    )
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        if wanted.keep is not None:
            wanted.keep.mkdir(parents=True, exist_ok=True)
        (ROOT / "docs" / "benchmarks.md").write_text(page(wanted.keep or Path(fresh), quick=wanted.quick))


if __name__ == "__main__":
    main()
