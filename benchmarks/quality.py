"""How much of a person's predictability a twin keeps, and what else could be had at the same budget.

One module for each data set; what the keys mean stands there.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

DATA = {
    "complete_journey": "benchmarks._quality_grocery",
    "msnbc": "benchmarks._quality_msnbc",
    "online_shoppers": "benchmarks._quality_shoppers",
}
"""Data set -> module with `measure(people, quick=...)`; imported only when asked for."""


def _lines(figures: dict[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in figures.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key:40} {value}")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATA), default="complete_journey")
    parser.add_argument("--people", type=Path, help="folder with the files of other people, never trained on")
    parser.add_argument("--quick", action="store_true", help="fewer people and seeds, at most 45 seconds")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures = import_module(DATA[chosen.data]).measure(chosen.people, quick=chosen.quick)
    print(json.dumps(figures, indent=2) if chosen.json else "\n".join(_lines(figures)))


if __name__ == "__main__":
    main()
