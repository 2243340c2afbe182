"""Text and JSON encodings that signed records use; strict on the way in, fixed on the way out."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from vault.errors import MalformedInput

JsonValue: TypeAlias = "str | int | list[JsonValue] | dict[str, JsonValue]"
JsonObject: TypeAlias = dict[str, JsonValue]

_NOT_B64U = "A binary field is not base64url without padding."
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")  # what base64url does not have becomes what no base64 has
_NO_BITS_LEFT = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}  # how a field may end, by what is left of its length by fours
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_SPACE = " \t\n\r"  # as JSON has it
_MAX_DEPTH = 16
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_MAX_INTEGER = 2**53 - 1  # beyond it a JavaScript verifier would read another number


def b64u(data: bytes) -> str:
    """Return base64url without padding, the text form of every binary field."""
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def parse_b64u(text: object, *, size: int | None = None) -> bytes:
    """Decode base64url without padding, refusing every second spelling of the same bytes.

    Args:
        text: The encoded field, of any type; only a string can be right.
        size: Exact length expected in bytes, if it is fixed.

    Raises:
        MalformedInput: Another alphabet, padding, stray trailing bits or another length.
    """
    if not isinstance(text, str) or not text.isascii():
        raise MalformedInput(_NOT_B64U)
    encoded, over = text.encode(), len(text) % 4
    try:
        data = binascii.a2b_base64(encoded.translate(_STANDARD) + b"=" * (-over % 4), strict_mode=True)
    except binascii.Error:
        raise MalformedInput(_NOT_B64U) from None
    if over and encoded[-1] not in _NO_BITS_LEFT[over]:  # of 1 over there are no bytes: refused above
        raise MalformedInput("A binary field has stray bits after its last byte.")
    if size is not None and len(data) != size:
        raise MalformedInput(f"A binary field has {len(data)} bytes where {size} are expected.")
    return data


def dump_json(value: JsonObject) -> bytes:
    """Return one fixed JSON spelling: sorted keys, no spaces, UTF-8.

    Raises:
        MalformedInput: The value holds anything but strings, integers, lists and objects.
    """
    _check(value, 0)
    return _ENCODER.encode(value).encode()


def parse_json(data: bytes) -> JsonObject:
    """Parse the JSON of a signed record.

    Floats, booleans, null, duplicate keys and integers that two languages would read
    differently are refused: a signature must mean one thing to every reader.

    Args:
        data: UTF-8 bytes of one JSON object.

    Raises:
        MalformedInput: The bytes are not such an object.
    """
    try:
        text = data.decode("utf-8").strip(_SPACE)
        value, end = _scan(text, 0)
    except (StopIteration, RecursionError, ValueError) as error:
        raise MalformedInput("A record is not one JSON object in UTF-8.") from error
    if end != len(text):
        raise MalformedInput("A record is followed by something else.")
    if not isinstance(value, dict):
        raise MalformedInput("A record must be a JSON object.")
    if text.isascii() and "\\" not in text:  # then no text in it needs a look
        _check_all(value.values(), 1)
    else:
        _check(value, 0)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedInput("A record names the same key twice.")
    return result


def _refuse(_text: str) -> JsonValue:
    raise MalformedInput("A record holds a number with a fraction or exponent; only integers are allowed.")


# `decode` would match two regular expressions around what this reads: a third of the time of a short record.
_DECODER: Any = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
_scan = _DECODER.scan_once


def _check(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise MalformedInput(f"A record is nested deeper than {_MAX_DEPTH} levels.")
    match value:
        case dict():
            for key in value:
                if type(key) is not str or not key.isascii():  # as in `_check_all`
                    _check_key(key)
            _check_all(value.values(), depth + 1)
        case str():
            _check_text(value)
        case list():
            _check_all(value, depth + 1)
        case bool() | None | float():
            raise MalformedInput("A record holds a boolean, null or float; use strings and integers.")
        case int():
            if abs(value) > _MAX_INTEGER:
                raise MalformedInput("A record holds an integer beyond 2**53 - 1.")
        case _:
            raise MalformedInput(f"A record cannot hold a {type(value).__name__}.")


def _check_all(values: Iterable[Any], depth: int) -> None:
    for value in values:
        # Most of a record is plain text and small numbers; a call for each would cost more than the test.
        kind = type(value)
        if kind is str:
            if not value.isascii():
                _check_text(value)
        elif kind is not int or not -_MAX_INTEGER <= value <= _MAX_INTEGER:
            _check(value, depth)


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise MalformedInput("A record names a key that is not a text.")
    _check_text(key)


def _check_text(text: str) -> None:
    if not text.isascii() and _HALF_PAIR.search(text):
        raise MalformedInput("A record holds half of a surrogate pair.")
