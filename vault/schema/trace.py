"""A trace: one event that a person left, in one compact typed shape with integers only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, NewType
from zoneinfo import ZoneInfo

from vault.encoding import JsonObject
from vault.errors import MalformedInput
from vault.schema.category import CATEGORIES, Category

Period = NewType("Period", str)
"""A calendar month of local dates, `YYYY-MM`."""

MAX_INTEGER: Final = 2**53 - 1
_LAST_MS: Final = 7_258_118_400_000  # 2200-01-01: a later time is a wrong unit, not an event
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_PERIOD: Final = re.compile(r"(19[7-9][0-9]|2[01][0-9][0-9])-(0[1-9]|1[0-2])")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class Action(StrEnum):
    """What the person did."""

    BUY = "buy"
    RETURN = "return"
    PAY = "pay"
    RECEIVE = "receive"
    RESERVE = "reserve"
    SEARCH = "search"
    VIEW = "view"
    CLICK = "click"
    READ = "read"
    WATCH = "watch"
    LISTEN = "listen"
    WRITE = "write"
    TALK = "talk"
    RATE = "rate"
    SAVE = "save"
    CART = "cart"
    CHECKOUT = "checkout"
    USE = "use"
    VISIT = "visit"
    TRAVEL = "travel"
    EXERCISE = "exercise"
    SLEEP = "sleep"
    MEASURE = "measure"


_ACTIONS: Final = {str(action): action for action in Action}


@dataclass(frozen=True, slots=True)
class Trace:
    """One event that a person left.

    A purchase line has an object, a quantity and an amount; a trip a distance in `m`; a listen
    a duration in `s`; a health reading a metric as object and its value as quantity.

    Args:
        id: Unique within its source, 1 to 128 characters.
        source: What recorded it, such as `completejourney`, 1 to 64 characters.
        occurred_at: When, aware, UTC, whole milliseconds, 1970 to 2199.
        category: The personal-data term it belongs to.
        action: What the person did.
        object: What with: a code `taxonomy:code`, at most 128 characters, or empty.
        text: What with, in words, at most 1,024 characters, or empty.
        quantity_milli: How much in thousandths of `unit`, or None.
        unit: UCUM unit of the quantity, at most 16 characters; empty for a count.
        amount_milli: Money in thousandths of `currency`, positive as seen by the other party, or None.
        currency: ISO 4217 code; given exactly when there is an amount.

    Raises:
        MalformedInput: A field is outside what is said above.
    """

    id: str
    source: str
    occurred_at: datetime
    category: Category
    action: Action
    object: str = ""
    text: str = ""
    quantity_milli: int | None = None
    unit: str = ""
    amount_milli: int | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        if not (0 < len(self.id) <= 128 and 0 < len(self.source) <= 64):
            raise MalformedInput("A trace needs an id of 1 to 128 and a source of 1 to 64 characters.")
        if len(self.object) > 128 or len(self.text) > 1024 or len(self.unit) > 16:
            raise MalformedInput("A trace's object, text or unit is too long.")
        if self.occurred_at.tzinfo is not UTC or self.occurred_at.microsecond % 1000:
            raise MalformedInput("A trace's time is not in UTC with whole milliseconds.")
        if not 0 <= occurred_ms(self) < _LAST_MS:
            raise MalformedInput("A trace's time is not between 1970 and 2199.")
        if self.category not in CATEGORIES:
            raise MalformedInput("A trace's category is not a term of the vocabulary that TwinVault uses.")
        if (self.amount_milli is None) != (not self.currency) or (self.quantity_milli is None and self.unit):
            raise MalformedInput("A trace has a unit or currency without its number, or the other way round.")
        if self.currency and _CURRENCY.fullmatch(self.currency) is None:
            raise MalformedInput("A trace's currency is not an ISO 4217 code.")
        if abs(self.quantity_milli or 0) > MAX_INTEGER or abs(self.amount_milli or 0) > MAX_INTEGER:
            raise MalformedInput("A trace holds a number beyond 2**53 - 1.")


def parse_action(text: str) -> Action:
    """Return an action of the closed set.

    Raises:
        MalformedInput: The set has no such action.
    """
    action = _ACTIONS.get(text)
    if action is None:
        raise MalformedInput("A trace's action is not one that TwinVault knows.")
    return action


def occurred_ms(trace: Trace) -> int:
    """Return the trace's time in whole milliseconds since 1970."""
    return (trace.occurred_at - _EPOCH) // _MS


def at_ms(milliseconds: int) -> datetime:
    """Return the aware UTC time of milliseconds since 1970.

    Raises:
        MalformedInput: The time is not between 1970 and 2199.
    """
    if not 0 <= milliseconds < _LAST_MS:
        raise MalformedInput("A trace's time is not between 1970 and 2199.")
    return _EPOCH + timedelta(milliseconds=milliseconds)


def whole_ms(at: datetime) -> datetime:
    """Return an aware time in UTC, cut to whole milliseconds, as traces carry it.

    Raises:
        MalformedInput: The time has no zone; guessing one would move the trace to another day.
    """
    if at.tzinfo is None:
        raise MalformedInput("A time has no zone.")
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def dump_trace(trace: Trace) -> JsonObject:
    """Return the trace as JSON; empty fields are left out."""
    record: JsonObject = {"id": trace.id, "source": trace.source, "at": occurred_ms(trace)}
    record |= {"category": trace.category, "action": str(trace.action)}
    texts = {"object": trace.object, "text": trace.text, "unit": trace.unit, "currency": trace.currency}
    record |= {name: text for name, text in texts.items() if text}
    numbers = {"quantity": trace.quantity_milli, "amount": trace.amount_milli}
    return record | {name: number for name, number in numbers.items() if number is not None}


_TEXTS: Final = ("id", "source", "category", "action", "object", "text", "unit", "currency")
_NUMBERS: Final = ("at", "quantity", "amount")
_REQUIRED: Final = {"id", "source", "at", "category", "action"}


def parse_trace(record: JsonObject) -> Trace:
    """Return the trace of its JSON.

    Raises:
        MalformedInput: A field is missing, unknown, empty, of another type or out of bounds.
    """
    if not record.keys() >= _REQUIRED or not record.keys() <= {*_TEXTS, *_NUMBERS}:
        raise MalformedInput("A trace lacks a field or has an unknown one.")
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name, value in record.items():
        if name in _TEXTS and isinstance(value, str) and value:
            texts[name] = value
        elif name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
            numbers[name] = value
        else:
            raise MalformedInput("A trace's field is empty or of another type than documented.")
    return Trace(
        texts["id"],
        texts["source"],
        at_ms(numbers["at"]),
        Category(texts["category"]),
        parse_action(texts["action"]),
        texts.get("object", ""),
        texts.get("text", ""),
        numbers.get("quantity"),
        texts.get("unit", ""),
        numbers.get("amount"),
        texts.get("currency", ""),
    )


def local_date(occurred_at: datetime, time_zone: ZoneInfo) -> date:
    """Return the calendar day of an aware time in the vault's one fixed time zone."""
    return occurred_at.astimezone(time_zone).date()


def period_of(day: date) -> Period:
    """Return the calendar month of a local date."""
    return Period(f"{day.year:04}-{day.month:02}")


def parse_period(text: str) -> Period:
    """Return a period written `YYYY-MM`, 1970 to 2199.

    Raises:
        MalformedInput: The text is no such month.
    """
    if _PERIOD.fullmatch(text) is None:
        raise MalformedInput("A period is not a month written YYYY-MM.")
    return Period(text)


def periods_from(first: Period, count: int) -> list[Period]:
    """Return `count` consecutive periods, `first` included."""
    year, month = int(first[:4]), int(first[5:]) - 1
    return [Period(f"{year + (month + i) // 12:04}-{(month + i) % 12 + 1:02}") for i in range(count)]
