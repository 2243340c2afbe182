"""The answer record: one spelling, no contradiction."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import JsonObject, dump_json, parse_json
from vault.schema.answer import Answer, BadAnswer, Confidence, Prediction, answer_bytes, parse_answer
from vault.schema.question import QuestionKind

ANSWER = Answer(
    question_id=b"q" * 16,
    kind=QuestionKind.NEXT_CHOICE,
    body_sha256=b"b" * 32,
    consent_id=b"c" * 16,
    consent_version=3,
    subject=b"s" * 16,
    predictions=(Prediction("gpc:2", 500_000), Prediction("gpc:1", 100_000), Prediction("gpc:3", 100_000)),
    confidence=Confidence.MEDIUM,
    model_sha256=b"m" * 32,
    releases=frozenset({b"r" * 32, b"a" * 32}),
    policy_set_sha256=b"p" * 32,
    asked_at=1_700_000_000,
    salt=b"z" * 16,
)
BYTES = answer_bytes(ANSWER)


def test_an_answer_survives_its_bytes_unchanged() -> None:
    assert parse_answer(BYTES) == ANSWER


def test_an_abstention_survives_its_bytes_unchanged() -> None:
    answer = replace(ANSWER, predictions=(), confidence=Confidence.NONE)
    assert parse_answer(answer_bytes(answer)) == answer
    assert parse_json(answer_bytes(answer))["abstained"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": ()},
        {"confidence": Confidence.NONE},
        {"predictions": ANSWER.predictions[::-1]},
        {"predictions": (Prediction("a", 2), Prediction("a", 1))},
        {"predictions": (Prediction("b", 2), Prediction("a", 2))},
    ],
)
def test_a_contradicting_answer_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(BadAnswer):
        replace(ANSWER, **changes)  # type: ignore[arg-type]  # one table of changed fields serves every case


@pytest.mark.parametrize(
    "changes",
    [
        {"abstained": 1},
        {"abstained": 2},
        {"consent_version": 0},
        {"kind": "any"},
        {"predictions": [{"code": str(n), "score_ppm": 1} for n in range(21)]},
        {"predictions": [{"code": "a", "score_ppm": 1_000_001}]},
        {"releases": ["AAAA"]},
        {"subject": "AA"},
        {"schema_version": "twinvault-answer/2"},
        {"more": 1},
    ],
)
def test_a_malformed_answer_is_refused(changes: JsonObject) -> None:
    with pytest.raises(BadAnswer):
        parse_answer(dump_json(parse_json(BYTES) | changes))


def test_an_answer_has_one_spelling() -> None:
    releases = parse_json(BYTES)["releases"]
    assert isinstance(releases, list)
    for unverified in (
        b" " + BYTES,
        BYTES.replace(b'":', b'": '),
        dump_json(parse_json(BYTES) | {"releases": releases[::-1]}),
        dump_json(parse_json(BYTES) | {"releases": [*releases, releases[-1]]}),
    ):
        with pytest.raises(BadAnswer):
            parse_answer(unverified)


@given(st.integers(0, len(BYTES) * 8 - 1))
def test_no_flipped_bit_reads_as_the_same_answer(bit: int) -> None:
    data = bytearray(BYTES)
    data[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(BadAnswer):
        assert parse_answer(bytes(data)) != ANSWER


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_escape_the_one_error(data: bytes) -> None:
    for unverified in (data, BYTES[: len(data)]):
        with pytest.raises(BadAnswer):
            parse_answer(unverified)
