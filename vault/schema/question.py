"""The closed catalogue of questions: what may be asked of a twin, in which bounds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias, assert_never

from vault.encoding import JsonObject, JsonValue, dump_json
from vault.errors import VaultError
from vault.schema.category import Category, Purpose, parse_category, parse_purpose
from vault.schema.reader import Reader
from vault.schema.session import SESSION_SCHEMA, Session, dump_session, parse_session

MAX_TOP_N: Final = 20
MAX_CANDIDATES: Final = 500
PURCHASE: Final = "purchase"
"""The outcome that an answer to `propensity` gives the probability of."""

CODE: Final = re.compile(r"[^\x00-\x20\x7f]{1,128}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{0,200}")


_ASKED: Final[JsonObject] = {
    "category": {"type": "string"},
    "purpose": {"type": "string"},
    "top_n": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_N},
}
_CANDIDATE: Final[JsonObject] = {
    "type": "object",
    "required": ["code", "text"],
    "additionalProperties": False,
    "properties": {
        "code": {"type": "string", "pattern": f"^{CODE.pattern}$"},
        "text": {"type": "string", "pattern": f"^{_TEXT.pattern}$"},
    },
}
QUESTION_SCHEMA: Final[JsonObject] = {
    "oneOf": [
        {
            "type": "object",
            "required": ["kind", "category", "purpose", "top_n"],
            "additionalProperties": False,
            "properties": {"kind": {"const": "next_choice"}, **_ASKED},
        },
        {
            "type": "object",
            "required": ["kind", "category", "purpose", "top_n", "candidates"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "recommend"},
                **_ASKED,
                "candidates": {"type": "array", "minItems": 1, "maxItems": MAX_CANDIDATES, "items": _CANDIDATE},
            },
        },
        {
            "type": "object",
            "required": ["kind", "category", "purpose", "session"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "propensity"},
                "category": _ASKED["category"],
                "purpose": _ASKED["purpose"],
                "session": SESSION_SCHEMA,
            },
        },
    ]
}
"""The catalogue's shape for the OpenAPI document; `parse_question` also knows the vocabulary and the one spelling."""


class BadQuestion(VaultError):
    """A question that is outside the catalogue or its bounds."""

    slug = "bad-question"
    title = "Question is not acceptable"
    status = 422


class QuestionNotServed(BadQuestion):
    """A question of the catalogue that this service does not answer."""

    slug = "question-not-served"
    title = "Question is not served"


class QuestionKind(StrEnum):
    """Every kind that a consent can name."""

    NEXT_CHOICE = "next_choice"
    RECOMMEND = "recommend"
    PROPENSITY = "propensity"
    SIMULATE_REACTION = "simulate_reaction"
    FORECAST = "forecast"
    POPULATION_MAP = "population_map"


@dataclass(frozen=True, slots=True)
class NextChoice:
    """Which taxonomy codes of one category will the person choose next time?

    Args:
        category: DPV personal-data term whose imprint rows are read.
        purpose: DPV purpose that the answer serves.
        top_n: How many codes to return, 1 to 20.
    """

    kind: ClassVar[QuestionKind] = QuestionKind.NEXT_CHOICE
    category: Category
    purpose: Purpose
    top_n: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One object that the company offers.

    Args:
        code: Taxonomy code.
        text: A few words that describe it, up to 200 characters; may be empty.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Recommend:
    """Which of the company's own candidates suit the person best?

    Args:
        category: DPV personal-data term whose imprint rows are read.
        purpose: DPV purpose that the answer serves.
        candidates: 1 to 500, each code once, in the company's order.
        top_n: How many of them to return, 1 to 20.
    """

    kind: ClassVar[QuestionKind] = QuestionKind.RECOMMEND
    category: Category
    purpose: Purpose
    candidates: tuple[Candidate, ...]
    top_n: int


@dataclass(frozen=True, slots=True)
class Propensity:
    """Will this visit to the company's shop end in a purchase?

    Args:
        category: DPV personal-data term that the outcome belongs to.
        purpose: DPV purpose that the answer serves.
        session: The visit so far, as the company saw it.
    """

    kind: ClassVar[QuestionKind] = QuestionKind.PROPENSITY
    top_n: ClassVar[int] = 1
    category: Category
    purpose: Purpose
    session: Session


Question: TypeAlias = NextChoice | Recommend | Propensity


def parse_question(record: JsonObject) -> Question:
    """Read one question.

    Args:
        record: The request body as `parse_json` returned it.

    Raises:
        BadQuestion: The body is no question of the catalogue within its bounds;
            `QuestionNotServed` where the kind is known but not answered here.
    """
    r = Reader(record, BadQuestion, "question")
    kind = r.word("kind", QuestionKind)
    match kind:
        case QuestionKind.NEXT_CHOICE:
            question: Question = NextChoice(
                r.word("category", parse_category), r.word("purpose", parse_purpose), r.integer("top_n", 1, MAX_TOP_N)
            )
        case QuestionKind.RECOMMEND:
            category, purpose = r.word("category", parse_category), r.word("purpose", parse_purpose)
            candidates = _parse_candidates(r)
            top_n = r.integer("top_n", 1, min(MAX_TOP_N, len(candidates)))
            question = Recommend(category, purpose, candidates, top_n)
        case QuestionKind.PROPENSITY:
            category, purpose = r.word("category", parse_category), r.word("purpose", parse_purpose)
            question = Propensity(category, purpose, parse_session(r.object("session")))
        case QuestionKind.SIMULATE_REACTION | QuestionKind.FORECAST | QuestionKind.POPULATION_MAP:
            raise QuestionNotServed(
                f"This service does not answer {kind} questions; ask next_choice, recommend or propensity."
            )
        case _:
            assert_never(kind)
    r.end()
    return question


def dump_question(question: Question) -> JsonObject:
    """Return the question as a request body's object."""
    record: JsonObject = {
        "kind": question.kind.value,
        "category": question.category,
        "purpose": question.purpose,
    }
    match question:
        case NextChoice():
            return record | {"top_n": question.top_n}
        case Recommend():
            candidates: list[JsonValue] = [{"code": item.code, "text": item.text} for item in question.candidates]
            return record | {"top_n": question.top_n, "candidates": candidates}
        case Propensity():
            return record | {"session": dump_session(question.session)}
        case _:
            assert_never(question)


def may_name(question: Question, codes: Collection[str]) -> bool:
    """Say whether an answer to the question may name these codes: no more than asked for, and what was offered."""
    match question:
        case NextChoice():
            offered = frozenset(codes)
        case Recommend():
            offered = frozenset(item.code for item in question.candidates)
        case Propensity():
            offered = frozenset({PURCHASE})
        case _:
            assert_never(question)
    return len(codes) <= question.top_n and offered.issuperset(codes)


def body_sha256(question: Question) -> bytes:
    """Return the digest that the asker signs: SHA-256 over the one fixed JSON spelling of the body."""
    return hashlib.sha256(dump_json(dump_question(question))).digest()


def _parse_candidates(r: Reader) -> tuple[Candidate, ...]:
    candidates = []
    for item in r.objects("candidates", at_most=MAX_CANDIDATES):
        candidates.append(Candidate(item.text("code", CODE), item.text("text", _TEXT)))
        item.end()
    if not candidates or len({candidate.code for candidate in candidates}) != len(candidates):
        raise r.refusal("candidates", "must name at least one candidate and each code once")
    return tuple(candidates)
