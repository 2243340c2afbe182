"""Signed JSON: one meaning to every reader, one spelling on the way out, one error family for any bytes."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput

VALUES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES))
def test_records_survive_the_trip(record: dict[str, object]) -> None:
    try:
        data = dump_json(record)  # type: ignore[arg-type]  # Hypothesis types recursion loosely
    except MalformedInput:  # only for its depth
        record = {}
        data = dump_json(record)
    assert parse_json(data) == record
    assert dump_json(parse_json(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"1", b'"x"', b"null", b"\xff", b"{", b'{"a":1}x', b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}',
        b'{"a":1.0}', b'{"a":1e3}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":true}', b'{"a":[null]}', b'{"a":-0.0}',
        b'{"a":9007199254740992}', b'{"a":-9007199254740992}', b'{"a":"\\ud800"}', b'{"\\udfff":1}', b'{"a":["\\udc00"]}',
        b"[" * 100_000, b'{"a":' * 50 + b"1" + b"}" * 50, b'{"a":' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_json(data)


@pytest.mark.parametrize("value", [1.5, True, None, b"x", {"a"}, 2**53, "\ud800", {"\ud800": 1}, {1: 2}])
def test_what_no_record_holds_is_never_written(value: object) -> None:
    with pytest.raises(MalformedInput):
        dump_json({"a": value})  # type: ignore[dict-item]


@given(st.binary(max_size=64))
def test_any_bytes_are_a_record_or_one_error(data: bytes) -> None:
    try:
        assert isinstance(parse_json(data), dict)
    except MalformedInput:
        with pytest.raises((ValueError, AssertionError, MalformedInput)):
            record = json.loads(data)
            assert isinstance(record, dict)
            dump_json(record)


@given(st.binary())
def test_binary_fields_have_one_spelling(data: bytes) -> None:
    assert parse_b64u(b64u(data), size=len(data)) == data


@given(st.text(alphabet="AQgwBZaz09-_+/= \n", max_size=12))
def test_binary_fields_are_read_only_as_they_are_written(text: str) -> None:
    standard = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    try:
        spelled = b64u(base64.b64decode(standard))
    except ValueError:
        spelled = ""
    try:
        assert b64u(parse_b64u(text)) == text
    except MalformedInput:
        assert spelled != text


def test_spaces_may_stand_around_a_record_and_nothing_else() -> None:
    assert parse_json(b' \t\r\n{"a": 1}\n') == {"a": 1}
    for around in (b'{"a":1}\x0b', "\u00a0{}".encode(), b"{}{}", b"{} x", b"\xef\xbb\xbf{}", b"  "):
        with pytest.raises(MalformedInput):
            parse_json(around)


@pytest.mark.parametrize("text", ["A", "AA=", "AA==", "A A", "AB", "+/==", "é", "AA\n", 5, None, b"AA"])
def test_second_spellings_of_binary_are_refused(text: object) -> None:
    with pytest.raises(MalformedInput):
        parse_b64u(text)


def test_another_length_is_refused() -> None:
    with pytest.raises(MalformedInput, match="2 bytes where 3"):
        parse_b64u(b64u(b"ab"), size=3)
