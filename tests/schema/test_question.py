"""The closed catalogue of questions and its bounds."""

from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import JsonObject, JsonValue, dump_json, parse_json
from vault.schema.category import Category, Purpose
from vault.schema.question import (
    BadQuestion,
    Candidate,
    NextChoice,
    Propensity,
    Question,
    QuestionKind,
    QuestionNotServed,
    Recommend,
    body_sha256,
    dump_question,
    may_name,
    parse_question,
)
from vault.schema.session import Session

CATEGORY, PURPOSE = Category("pd:Purchase"), Purpose("dpv:ProvideProductRecommendations")
NEXT = NextChoice(CATEGORY, PURPOSE, 20)
RECOMMEND = Recommend(CATEGORY, PURPOSE, (Candidate("gpc:10000045", "Oat drink"), Candidate("gpc:2", "")), 2)
SERVED = {QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND, QuestionKind.PROPENSITY}
VISIT = Propensity(CATEGORY, PURPOSE, Session(product_pages=3))


@pytest.mark.parametrize("question", [NEXT, RECOMMEND, VISIT])
def test_a_question_survives_its_bytes_unchanged(question: Question) -> None:
    assert parse_question(parse_json(dump_json(dump_question(question)))) == question


def test_the_signed_digest_changes_with_every_field() -> None:
    swapped = Recommend(CATEGORY, PURPOSE, RECOMMEND.candidates[::-1], 2)
    others: list[Question] = [
        NEXT,
        NextChoice(CATEGORY, PURPOSE, 19),
        NextChoice(Category("pd:Location"), PURPOSE, 20),
        NextChoice(CATEGORY, Purpose("dpv:Marketing"), 20),
        RECOMMEND,
        swapped,
        VISIT,
        Propensity(CATEGORY, PURPOSE, Session(product_pages=4)),
        Propensity(CATEGORY, PURPOSE, Session(product_pages=3, weekend=True)),
    ]
    assert len({body_sha256(question) for question in others}) == len(others)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "mind_reading"},
        {"kind": 1},
        {"category": "pd:Soul"},
        {"category": "dpv:Marketing"},
        {"purpose": "pd:Purchase"},
        {"purpose": ""},
        {"top_n": 0},
        {"top_n": 3},
        {"top_n": 21},
        {"top_n": True},
        {"top_n": "2"},
        {"candidates": []},
        {"candidates": "gpc:2"},
        {"candidates": [{"code": "a"}]},
        {"candidates": [{"code": "a", "text": "", "price": 1}]},
        {"candidates": [{"code": "a", "text": ""}, {"code": "a", "text": "again"}]},
        {"candidates": [{"code": "a b", "text": ""}, {"code": "c", "text": ""}]},
        {"candidates": [{"code": "a" * 129, "text": ""}, {"code": "c", "text": ""}]},
        {"candidates": [{"code": "a", "text": "t" * 201}, {"code": "c", "text": ""}]},
        {"candidates": [{"code": str(n), "text": ""} for n in range(501)]},
        {"horizon": "next_shop"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_question_outside_its_bounds_is_refused(changes: JsonObject) -> None:
    with pytest.raises(BadQuestion) as caught:
        parse_question(dump_question(RECOMMEND) | changes)
    assert not isinstance(caught.value, QuestionNotServed)


def test_the_largest_question_is_read() -> None:
    candidates = tuple(Candidate(str(n), "t" * 200) for n in range(500))
    question = Recommend(CATEGORY, PURPOSE, candidates, 20)
    assert parse_question(dump_question(question)) == question


@pytest.mark.parametrize("name", ["category", "purpose", "top_n", "candidates", "kind"])
def test_a_missing_field_is_refused(name: str) -> None:
    record = copy.deepcopy(dump_question(RECOMMEND))
    del record[name]
    with pytest.raises(BadQuestion, match=name):
        parse_question(record)


def test_next_choice_takes_no_candidates() -> None:
    record = dump_question(RECOMMEND) | {"kind": "next_choice"}
    with pytest.raises(BadQuestion):
        parse_question(record)


@pytest.mark.parametrize("kind", sorted(set(QuestionKind) - SERVED))
def test_a_known_kind_that_is_not_served_says_so(kind: QuestionKind) -> None:
    with pytest.raises(QuestionNotServed, match="next_choice"):
        parse_question({"kind": kind.value})


@given(
    st.sampled_from(sorted(dump_question(RECOMMEND))),
    st.none() | st.floats() | st.text() | st.integers() | st.lists(st.none() | st.dictionaries(st.text(), st.text())),
)
def test_arbitrary_values_never_escape_the_one_error(name: str, value: JsonValue) -> None:
    with contextlib.suppress(BadQuestion):
        assert dump_json(dump_question(parse_question(dump_question(RECOMMEND) | {name: value})))


def test_an_answer_may_name_what_was_offered_and_no_more_than_asked_for() -> None:
    assert may_name(NEXT, ["gpc:1"] * 20)
    assert not may_name(NEXT, ["gpc:1"] * 21)
    assert may_name(RECOMMEND, ["gpc:2"])
    assert not may_name(RECOMMEND, ["gpc:3"])
    assert may_name(VISIT, ["purchase"])
    assert not may_name(VISIT, ["gpc:1"])
    assert not may_name(VISIT, ["purchase", "purchase"])
