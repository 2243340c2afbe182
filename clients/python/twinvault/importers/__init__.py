"""Importers: each reads one kind of file and yields traces, row by row, with nothing kept in memory.

found = open_import(path, ZoneInfo("Europe/Berlin"))
for trace in found: ...
found.rows_read, found.reasons   # complete once the loop is over
"""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

from twinvault.importers.base import Import, Importer, UnknownFormat, read_sample
from twinvault.importers.completejourney import CompleteJourney
from twinvault.importers.jsonl import TraceLines

__all__ = ["IMPORTERS", "Import", "Importer", "UnknownFormat", "open_import"]

IMPORTERS: tuple[Importer, ...] = (TraceLines(), CompleteJourney())


def open_import(path: Path, time_zone: ZoneInfo) -> Import:
    """Return the traces of a file whose format is found from its first bytes.

    Args:
        path: The file.
        time_zone: Where times without a zone were taken.

    Raises:
        UnknownFormat: The file cannot be opened, or no importer knows it.
    """
    sample = read_sample(path)
    for importer in IMPORTERS:
        if importer.knows(sample):
            return Import(importer, path, time_zone)
    names = ", ".join(importer.title for importer in IMPORTERS)
    raise UnknownFormat(f"The format of {path.name} is not known. TwinVault reads: {names}.")
