"""Strict reading of one JSON object: each field once, of its type and range, and none left over."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from vault.encoding import JsonObject, JsonValue, parse_b64u
from vault.errors import MalformedInput, VaultError

T = TypeVar("T")

_MAX_INTEGER = 2**53 - 1
_LAST_SECOND = 253_402_300_799  # of the year 9999


class Reader:
    """Takes the fields out of one record and refuses whatever is missing, wrong or unknown.

    An ignored field would let two readers of one signature understand two things, so
    `end` must be called after the last field.

    Args:
        record: The object as `vault.encoding.parse_json` returned it, or any other value.
        error: The one error family that this record's parser raises.
        what: The record's name in sentences, such as "consent".

    Raises:
        error: By every method, where a field is missing or not what the method says.
    """

    def __init__(self, record: JsonValue, error: type[VaultError], what: str) -> None:
        if not isinstance(record, dict):
            raise error(f"A {what} must be a JSON object.")
        self._rest: JsonObject = dict(record)
        self._error = error
        self._what = what

    def text(self, name: str, pattern: re.Pattern[str], form: str = "") -> str:
        """Return a string that matches the whole pattern; `form` says the pattern in words, where people type it."""
        value = self._take(name)
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise self.refusal(name, f"must be {form or f'a text of the form {pattern.pattern}'}")
        return value

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        """Return a text as a parser reads it, whose `MalformedInput` is repeated: it names what was wrong."""
        value = self._take(name)
        if not isinstance(value, str):
            raise self.refusal(name, "must be a text")
        try:
            return parse(value)
        except MalformedInput as error:
            raise self._error(error.detail) from error

    def exactly(self, name: str, expected: str) -> None:
        """Refuse the record unless the field holds this one text."""
        if self._take(name) != expected:
            raise self.refusal(name, f"must be {expected!r}")

    def integer(self, name: str, low: int, high: int = _MAX_INTEGER) -> int:
        """Return an integer in the closed range."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refusal(name, f"must be an integer from {low} to {high}")
        return value

    def integers(self, name: str, low: int, high: int = _MAX_INTEGER, *, at_most: int) -> tuple[int, ...]:
        """Return a list of integers in the closed range, in the order written."""
        values = self._list(name, at_most)
        found = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
        if len(found) < len(values) or not all(low <= value <= high for value in found):
            raise self.refusal(name, f"must list integers from {low} to {high}")
        return tuple(found)

    def time(self, name: str) -> int:
        """Return a time in unix seconds, up to the year 9999."""
        return self.integer(name, 0, _LAST_SECOND)

    def flag(self, name: str) -> bool:
        """Return a flag, written as 0 or 1: signed records hold no booleans."""
        return self.integer(name, 0, 1) == 1

    def binary(self, name: str, *sizes: int) -> bytes:
        """Return bytes of one of the given lengths, written as base64url without padding."""
        return self._decode(name, self._take(name), sizes)

    def binaries(self, name: str, size: int, *, at_most: int) -> tuple[bytes, ...]:
        """Return a list of binary values of one length, in the order written."""
        return tuple(self._decode(name, value, (size,)) for value in self._list(name, at_most))

    def word(self, name: str, parse: Callable[[str], T]) -> T:
        """Return one term of a closed set, such as a `StrEnum` or a parser that raises `MalformedInput`."""
        return self._word(name, self._take(name), parse)

    def words(self, name: str, parse: Callable[[str], T], *, at_most: int) -> tuple[T, ...]:
        """Return a set of terms, written in strictly ascending order so that it has one spelling."""
        values = self._list(name, at_most)
        words = tuple(self._word(name, value, parse) for value in values)
        if len(words) > 1:
            texts = [value for value in values if isinstance(value, str)]
            if any(following <= text for text, following in pairwise(texts)):
                raise self.refusal(name, "must list different terms in ascending order")
        return words

    def objects(self, name: str, *, at_most: int) -> tuple[Reader, ...]:
        """Return readers over a list of objects."""
        return tuple(Reader(value, self._error, f"{self._what}'s {name}") for value in self._list(name, at_most))

    def object(self, name: str) -> Reader:
        """Return a reader over one object."""
        return Reader(self._take(name), self._error, f"{self._what}'s {name}")

    def mapping(self, name: str) -> JsonObject:
        """Return one object whose fields another schema checks."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise self.refusal(name, "must be an object")
        return value

    def end(self) -> None:
        """Refuse the record if a field was left over."""
        if self._rest:
            raise self._error(f"The {self._what} has {len(self._rest)} fields that it does not know; remove them.")

    def refusal(self, name: str, why: str) -> VaultError:
        """Return this record's error about one field; the field's own content is never repeated."""
        return self._error(f"The {self._what}'s {name!r} {why}.")

    def _word(self, name: str, value: JsonValue, parse: Callable[[str], T]) -> T:
        if not isinstance(value, str):
            raise self.refusal(name, "must be a text")
        try:
            return parse(value)
        except (ValueError, MalformedInput) as error:
            raise self.refusal(name, "is not a term of its closed set") from error

    def _decode(self, name: str, value: JsonValue, sizes: tuple[int, ...]) -> bytes:
        try:
            data = parse_b64u(value) if isinstance(value, str) else None
        except MalformedInput:
            data = None
        if data is None or len(data) not in sizes:
            raise self.refusal(name, f"must be {' or '.join(map(str, sizes))} bytes in base64url without padding")
        return data

    def _list(self, name: str, at_most: int) -> list[JsonValue]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > at_most:
            raise self.refusal(name, f"must be a list of at most {at_most}")
        return value

    def _take(self, name: str) -> JsonValue:
        try:
            return self._rest.pop(name)
        except KeyError:
            raise self.refusal(name, "is missing") from None
