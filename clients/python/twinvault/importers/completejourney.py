"""Household shopping histories in the columns of 'The Complete Journey' (84.51 degrees), as CSV or Parquet.

One file is one household's. A purchase's object is `completejourney:` with the product category in
lower case and every run of other characters than a-z and 0-9 as one hyphen, none at the ends: the
codes of the published feature map.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from twinvault.importers.base import Rejected, UnknownFormat
from vault.errors import MalformedInput
from vault.schema.category import Category
from vault.schema.trace import MAX_INTEGER, Action, Trace, whole_ms

_PARQUET: Final = b"PAR1"
_NEEDED: Final = ("household_id", "transaction_timestamp", "product_category", "quantity", "sales_value")
_OPTIONAL: Final = ("basket_id", "product_id", "department", "product_type")
_PURCHASE: Final = Category("pd:Purchase")
_SOURCE: Final = "completejourney"
_CURRENCY: Final = "USD"
_BATCH_ROWS: Final = 8192
_MAX_TEXT_CHARS: Final = 1024
_NOT_CODE: Final = re.compile("[^a-z0-9]+")
_LOST: Final = re.compile("[\ud800-\udfff\0]")


def slug(name: str) -> str:
    """Return a category's name as a code: lower case, runs of anything else than a-z0-9 as one hyphen."""
    return _NOT_CODE.sub("-", name.lower()).strip("-")


class CompleteJourney:
    """One household's purchases."""

    name = "completejourney"
    title = "Complete Journey household purchases (CSV or Parquet)"

    def knows(self, sample: bytes) -> bool:
        """Say whether a file is Parquet, or CSV with the columns that a purchase needs."""
        if sample.startswith(_PARQUET):
            return True
        header = sample.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
        return set(next(csv.reader([header.strip()]), [])) >= set(_NEEDED)

    def rows(self, path: Path, time_zone: ZoneInfo) -> Iterator[Trace | Rejected]:
        """Yield a purchase for each row of the file's first household."""
        seen: Counter[bytes] = Counter()
        household = ""
        for cells in _parquet(path) if _is_parquet(path) else _csv(path):
            if isinstance(cells, Rejected):
                yield cells
                continue
            household = household or cells["household_id"]
            if cells["household_id"] != household:
                yield Rejected("another household than the file's first row")
                continue
            yield _row(cells, time_zone, seen)


def _row(cells: Mapping[str, str], time_zone: ZoneInfo, seen: Counter[bytes]) -> Trace | Rejected:
    if any(_LOST.search(cell) for cell in cells.values()):
        return Rejected("not UTF-8 text")
    try:
        occurred_at = datetime.fromisoformat(cells["transaction_timestamp"])
        quantity, amount = (_milli(cells[name]) for name in ("quantity", "sales_value"))
    except ValueError:
        return Rejected("time, quantity or sales value is not one")
    if occurred_at.tzinfo is None:
        occurred_at = occurred_at.replace(tzinfo=time_zone)
    name = cells["product_category"]
    # The same row has the same id in every import, from CSV or Parquet; equal rows are told apart by their count.
    about = [cells[part] for part in ("household_id", "basket_id", "product_id")]
    row = (occurred_at.isoformat(), *about, name, str(quantity), str(amount))
    content = hashlib.sha256("\x1f".join(row).encode()).digest()
    seen[content] += 1
    try:
        return Trace(
            id=hashlib.sha256(content + seen[content].to_bytes(8, "big")).hexdigest()[:32],
            source=_SOURCE,
            occurred_at=whole_ms(occurred_at),
            category=_PURCHASE,
            action=Action.RETURN if quantity < 0 else Action.BUY,
            object=f"{_SOURCE}:{slug(name)}" if slug(name) else "",
            text=(cells["product_type"] or name or cells["department"])[:_MAX_TEXT_CHARS],
            quantity_milli=abs(quantity),
            amount_milli=amount,
            currency=_CURRENCY,
        )
    except (MalformedInput, OverflowError):
        return Rejected("outside what a trace can hold")


def _milli(text: str) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise ValueError("not a number") from error
    if not value.is_finite() or abs(value) * 1000 > MAX_INTEGER:
        raise ValueError("not a number that a trace can hold")
    return int((value * 1000).to_integral_value())


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise UnknownFormat(f"The file {path} cannot be read: {error.strerror}.") from error


def _csv(path: Path) -> Iterator[dict[str, str] | Rejected]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval=None)
            while True:
                try:
                    row = next(reader, None)
                except csv.Error:
                    yield Rejected("not a CSV row")
                    continue
                if row is None:
                    return
                yield _cells(row)
    except OSError as error:
        raise UnknownFormat(f"The file {path} cannot be read: {error.strerror}.") from error


def _parquet(path: Path) -> Iterator[dict[str, str] | Rejected]:
    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        if not names >= set(_NEEDED):
            missing = ", ".join(name for name in _NEEDED if name not in names)
            raise UnknownFormat(f"The Parquet file lacks {missing}; join purchases with their products first.")
        columns = [name for name in (*_NEEDED, *_OPTIONAL) if name in names]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield from map(_cells, _plain(batch).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise UnknownFormat(f"The Parquet file {path.name} is damaged or cut short.") from error


def _plain(batch: Any) -> Any:
    """Return the batch with times of microseconds: nanoseconds have no place in Python's own times."""
    at = batch.schema.get_field_index("transaction_timestamp")
    kind = batch.schema.field(at).type
    if not pa.types.is_timestamp(kind):
        return batch
    column = batch.column(at).cast(pa.timestamp("us", tz=kind.tz), safe=False)
    return batch.set_column(at, "transaction_timestamp", column)


def _cells(row: Mapping[str, Any]) -> dict[str, str] | Rejected:
    if "" in row or any(row.get(name) in {None, ""} for name in _NEEDED if name != "product_category"):
        return Rejected("columns missing or too many")
    cells = {name: row.get(name) for name in (*_NEEDED, *_OPTIONAL)}
    return {name: "" if value is None else str(value) for name, value in cells.items()}
