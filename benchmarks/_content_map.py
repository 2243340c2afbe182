"""Writes the published map of browsing, its words and its departments from the IAB's public content taxonomy.

`python -m benchmarks._content_map` reads `taxonomies/iab_content_3.1.tsv` and nothing else. Coordinates are the two
upper tiers; what lies deeper counts as its second tier, and describes it. What the taxonomy marks as sensitive and no
word of the classifier of special categories names is left out: it would be offered without an opt-in.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks._coordinate_words import published_files
from benchmarks._shared import data_folder
from vault.encoding import dump_json
from vault.imprint.reveals import reveals_of
from vault.schema.trace import Action

MAPS, DEPARTMENTS = Path("vault/imprint/data"), Path("vault/twin/data")
VERSION: Final = "content-1"
_PROVENANCE: Final = {
    "source": "IAB Tech Lab Content Taxonomy 3.1, github InteractiveAdvertisingBureau/Taxonomies, commit b7acdcaa30d4c389d0fe022e93865ca59a4299e6; nothing else was read.",
    "licence": "Creative Commons Attribution 3.0, IAB Technology Laboratory; changed: tiers 3 and 4 count as their second tier, names carry their first.",
    "made_with": "python -m benchmarks._content_map",
}
_ACTIONS: Final = (
    Action.SEARCH, Action.VIEW, Action.CLICK, Action.READ, Action.WATCH, Action.LISTEN, Action.WRITE, Action.TALK,
    Action.RATE, Action.SAVE,
)  # fmt: skip
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARTS: Final = ("night", "morning", "afternoon", "evening")
_HOURS: Final = 24 // len(_PARTS)
_PRICES_MILLI: Final = (10_000, 50_000, 200_000, 1_000_000)
_CURRENCIES: Final = ("EUR", "GBP", "USD")


@dataclass(frozen=True)
class Node:
    """One line of the taxonomy: its tiers from the first down."""

    id: str
    tiers: tuple[str, ...]
    sensitive: bool

    @property
    def code(self) -> str:
        return f"iab:{self.id}"

    @property
    def name(self) -> str:
        """Its name in words, which carries its first tier: that is what tells what it could reveal."""
        return ": ".join(dict.fromkeys((self.tiers[0], self.tiers[-1])))


def nodes() -> Iterator[Node]:
    """Yield the taxonomy's lines."""
    with (data_folder("taxonomies") / "iab_content_3.1.tsv").open(newline="") as file:
        for line in list(csv.reader(file, delimiter="\t"))[2:]:
            yield Node(line[0], tuple(filter(None, line[3:7])), line[7] == "SCD")


def words(text: str) -> str:
    """Return a name in plain lower-case words."""
    return " ".join(re.findall("[a-z]+", text.lower()))


def main() -> None:
    """Write the files."""
    everything = list(nodes())
    sensitive = {node.tiers for node in everything if node.sensitive}
    upper = [
        node
        for node in everything
        if len(node.tiers) <= 2
        and not (any(node.tiers[:depth] in sensitive for depth in (1, 2)) and not reveals_of(node.code, node.name))
    ]
    upper.sort(key=lambda node: (len(node.id), node.id))
    of_tiers = {node.tiers: node.code for node in upper}
    deeper = {
        node.code: of_tiers[node.tiers[:2]] for node in everything if len(node.tiers) > 2 and node.tiers[:2] in of_tiers
    }
    derived = [
        *([f"action:{action}", f"to {action}"] for action in _ACTIONS),
        *(
            [f"week:{day}-{part}", f"{name} {_PARTS[part]}"]
            for day, name in enumerate(_DAYS)
            for part in range(len(_PARTS))
        ),
        *([f"price:{at}", f"price range {at}"] for at in range(len(_PRICES_MILLI) + 1)),
    ]
    described: dict[str, list[str]] = {node.code: [words(node.tiers[-1])] for node in upper}
    for node in everything:
        if node.code in deeper:
            described[deeper[node.code]].append(words(node.tiers[-1]))
    said = {code: list(dict.fromkeys(filter(None, phrases))) for code, phrases in described.items()}
    said |= {code: [] for code, _ in derived}
    record_of_words = {
        "version": f"{VERSION}-words-1",
        "map": VERSION,
        "provenance": _PROVENANCE,
        "files": published_files(),
        "words": said,
    }
    _write(MAPS / f"{VERSION}-words.json", record_of_words)
    _write(
        MAPS / f"{VERSION}.json",
        {
            "category": "pd:BrowsingBehaviour",
            "version": VERSION,
            "clip": 256,
            "active_day_percent": 5,
            "provenance": _PROVENANCE,
            "words_sha256": hashlib.sha256(dump_json(record_of_words)).hexdigest(),
            "part_of_week_hours": _HOURS,
            "price_bounds_milli": list(_PRICES_MILLI),
            "currencies": list(_CURRENCIES),
            "within": deeper,
            "derived": derived,
            "coordinates": [[node.code, node.name] for node in upper],
        },
    )
    departments: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for node in upper:
        departments[node.tiers[0]][node.code] = len(said[node.code])
    for code, _ in derived:
        departments[code.partition(":")[0]][code] = 1
    _write(DEPARTMENTS / f"{VERSION}.json", {"map": VERSION, "provenance": _PROVENANCE, "departments": departments})


def _write(target: Path, record: dict[str, Any]) -> None:
    target.write_text(json.dumps(record, indent=1) + "\n")
    sys.stderr.write(f"{target}: {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
