"""TwinVault's own format: one trace a line, JSON, as `vault.schema.trace.dump_trace` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from twinvault.importers.base import Rejected, UnknownFormat
from vault.encoding import parse_json
from vault.errors import MalformedInput
from vault.schema.trace import Trace, parse_trace

_MAX_LINE_BYTES: Final = 65_536
_FIELDS: Final = {"id", "source", "at", "category", "action"}


class TraceLines:
    """JSON lines, a trace each."""

    name = "twinvault"
    title = "TwinVault JSON lines"

    def knows(self, sample: bytes) -> bool:
        """Say whether the first line is a JSON object with a trace's fields."""
        first = sample.lstrip().split(b"\n", 1)[0]
        try:
            return parse_json(first).keys() >= _FIELDS
        except MalformedInput:
            return False

    def rows(self, path: Path, time_zone: ZoneInfo) -> Iterator[Trace | Rejected]:
        """Yield a trace for each line; empty lines count for nothing."""
        try:
            with path.open("rb") as file:
                # Bounded reads: one line without an end must not fill the memory.
                while line := file.readline(_MAX_LINE_BYTES + 1):
                    if len(line) > _MAX_LINE_BYTES:
                        while line and not line.endswith(b"\n"):
                            line = file.readline(_MAX_LINE_BYTES)
                        yield Rejected("line too long")
                    elif line.strip():
                        yield _row(line)
        except OSError as error:
            raise UnknownFormat(f"The file {path} cannot be read: {error.strerror}.") from error


def _row(line: bytes) -> Trace | Rejected:
    try:
        record = parse_json(line)
    except MalformedInput:
        return Rejected("not JSON of strings and integers")
    try:
        return parse_trace(record)
    except MalformedInput as error:
        return Rejected(error.detail)
