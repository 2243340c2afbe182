"""Run every benchmark and write docs/benchmarks.md from the JSON that each prints."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
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


def measure(command: list[str]) -> dict[str, Any]:
    """Return what one benchmark printed.

    Raises:
        CalledProcessError: It did not complete.
    """
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, timeout=_LIMIT_S, check=True
    )
    figures: dict[str, Any] = json.loads(run.stdout)
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


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most 45 seconds each")
    quick = parser.parse_args().quick
    at, machine = f"{datetime.now(UTC):%Y-%m-%d}", f"{platform.machine()}, Python {platform.python_version()}"
    lines = [
        "# Benchmarks",
        "",
        f"Written by `python -m benchmarks{' --quick' if quick else ''}` on {at} ({machine}, 2 shared cores: trust ratios and medians, not absolutes).",
        "Each table is what its command printed; nothing here was typed by hand.",
    ]
    for name, *arguments in commands():
        command = [f"benchmarks.{name}", *arguments, "--json", *(["--quick"] if quick else [])]
        print(" ".join(command), "...", file=sys.stderr, flush=True)
        title = " ".join([name, *arguments[1:]])
        lines += ["", f"## {title}", "", f"`python -m {' '.join(command)}`", "", "| figure | value |", "| --- | --- |"]
        lines += table(measure(command))
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
