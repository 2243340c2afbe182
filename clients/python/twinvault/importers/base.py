"""What every importer offers, and one run of it with its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from twinvault.api import ClientError
from vault.schema.trace import Trace

SAMPLE_BYTES: Final = 65_536


class UnknownFormat(ClientError):
    """A file that cannot be opened or read as what it seems to be."""

    slug = "unknown-format"
    title = "File cannot be imported"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that makes no trace.

    Args:
        reason: Why, in a few fixed words; never a part of the row.
    """

    reason: str


class Importer(Protocol):
    """Reads one format."""

    @property
    def name(self) -> str:
        """A short, stable name."""

    @property
    def title(self) -> str:
        """The format in words."""

    def knows(self, sample: bytes) -> bool:
        """Say whether a file that begins with these bytes is of this format."""

    def rows(self, path: Path, time_zone: ZoneInfo) -> Iterator[Trace | Rejected]:
        """Yield one item a row; the same row gives the same trace id each time.

        Raises:
            UnknownFormat: The file turns out not to be of this format.
        """


class Import:
    """One run of an importer: an iterable of traces whose counts are complete once it is exhausted.

    Args:
        importer: Which one.
        path: The file.
        time_zone: Where times without a zone were taken.
    """

    def __init__(self, importer: Importer, path: Path, time_zone: ZoneInfo) -> None:
        self.format = importer.name
        self.rows_read = 0
        self.reasons: Counter[str] = Counter()
        self._rows = importer.rows(path, time_zone)

    @property
    def rejected(self) -> int:
        """Rows that made no trace."""
        return self.reasons.total()

    def __iter__(self) -> Iterator[Trace]:
        """Yield the traces, once."""
        for item in self._rows:
            self.rows_read += 1
            if isinstance(item, Rejected):
                self.reasons[item.reason] += 1
            else:
                yield item


def read_sample(path: Path) -> bytes:
    """Return the first bytes of a file.

    Raises:
        UnknownFormat: It cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return file.read(SAMPLE_BYTES)
    except OSError as error:
        raise UnknownFormat(f"The file {path} cannot be read: {error.strerror}.") from error
