"""The terms of a consent: what is asked for, or granted, in the same fields so that one can be compared with the other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from vault.encoding import JsonObject, JsonValue
from vault.errors import MalformedInput, VaultError
from vault.schema.category import Category, Purpose, is_special, parse_category, parse_purpose
from vault.schema.question import QuestionKind
from vault.schema.reader import Reader
from vault.schema.trace import Period, parse_period

COHORT_GRANTEE: Final = "operator"
SELF_GRANTEE: Final = "owner"

MAX_ANSWERS_PER_MONTH: Final = 1_000_000
"""The largest quota that a consent can name."""

AGENT_ANSWERS_PER_MONTH: Final = 25
"""How many answers software that asks by itself gets under one consent in a calendar month, whatever its quota."""

_MAX_TERMS = 64
_GRANTEE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SENTENCE = re.compile(r"[^\x00-\x1f\x7f]{1,300}")
_ONE_LINE = "one line of 1 to 300 characters"
_DURATION = re.compile(r"P[1-9][0-9]{0,3}[DMY]")


class BadConsent(VaultError):
    """A consent or consent request that does not have the documented shape or breaks its rules."""

    slug = "bad-consent"
    title = "Consent record is not acceptable"
    status = 422


class ConsentKind(StrEnum):
    """Whose work a consent allows: the owner's own twin, the cohort's models, a company's questions."""

    SELF = "self"
    COHORT = "cohort"
    COMPANY = "company"


class Necessity(StrEnum):
    """Whether the asked purpose can be served without a category."""

    NECESSARY = "necessary"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Handling:
    """How the grantee treats what it learns; a company declares it and the person signs the same words.

    Args:
        controller: Name and contact of the data controller (27560 `pii_controllers`).
        jurisdiction: Law that applies, such as `EU`.
        storage_locations: Where answers are kept.
        retention_period: How long answers are kept, as an ISO 8601 duration of days, months or years.
        withdrawal_method: Where the person withdraws.
        privacy_rights: Where the person exercises the other rights.
    """

    controller: str
    jurisdiction: str
    storage_locations: tuple[str, ...]
    retention_period: str
    withdrawal_method: str
    privacy_rights: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for, or granted: the same fields, so that one can be compared with the other.

    Args:
        kind: Whose work is allowed.
        grantee: Company id, `operator` for a cohort consent, `owner` for a self consent.
        purposes: DPV purposes.
        questions: Question kinds that may be asked; empty only for a cohort consent.
        necessary: DPV personal-data terms without which the purposes cannot be served.
        optional: DPV personal-data terms that would help.
        data_from: First month of data, `YYYY-MM`.
        data_to: Last month of data, `YYYY-MM`; no key beyond it is ever handed over.
        not_before: First second of validity, unix seconds.
        not_after: First second after validity, unix seconds.
        quota_per_month: Answers per calendar month in UTC; 0 for a cohort consent.
        explicit_special: Special categories (GDPR art. 9 and 10) opted into one by one.
        influence_opt_in: Whether purposes that steer the person are allowed.
        agent_allowed: Whether the grantee's software agents may ask.
        post_mortem: Purposes that stay allowed after the person's death; none by default.
        handling: The grantee's duties.

    Raises:
        BadConsent: The fields contradict each other.
    """

    kind: ConsentKind
    grantee: str
    purposes: frozenset[Purpose]
    questions: frozenset[QuestionKind]
    necessary: frozenset[Category]
    optional: frozenset[Category]
    data_from: Period
    data_to: Period
    not_before: int
    not_after: int
    quota_per_month: int
    explicit_special: frozenset[Category]
    influence_opt_in: bool
    agent_allowed: bool
    post_mortem: frozenset[Purpose]
    handling: Handling

    def __post_init__(self) -> None:
        fixed = {ConsentKind.SELF: SELF_GRANTEE, ConsentKind.COHORT: COHORT_GRANTEE}
        if fixed.get(self.kind, self.grantee) != self.grantee:
            raise BadConsent(f"A {self.kind} consent has the grantee {fixed[self.kind]!r}.")
        if self.kind is ConsentKind.COMPANY and self.grantee in fixed.values():
            raise BadConsent("A company consent names the company's id as its grantee.")
        if not self.purposes or not self.categories or self.necessary & self.optional:
            raise BadConsent("A consent names at least one purpose and one category, and each category once.")
        cohort = self.kind is ConsentKind.COHORT
        if bool(self.questions) is cohort or (self.quota_per_month > 0) is cohort:
            raise BadConsent("A cohort consent allows no question; every other consent allows at least one.")
        if self.data_from > self.data_to or self.not_before >= self.not_after:
            raise BadConsent("A window ends before it begins.")
        if not self.post_mortem <= self.purposes:
            raise BadConsent("A post-mortem purpose must be one of the consent's purposes.")

    @property
    def categories(self) -> frozenset[Category]:
        """All categories, necessary or optional."""
        return self.necessary | self.optional

    @property
    def usable(self) -> frozenset[Category]:
        """The categories whose keys are handed over: all but the special ones that were not opted into."""
        return frozenset(one for one in self.categories if one in self.explicit_special or not is_special(one))


def narrower_or_equal(granted: Terms, requested: Terms) -> bool:
    """Tell whether a grant stays inside what was asked: what is granted is never wider.

    The owner may leave out anything, a necessary category included: then the grantee may
    find that it cannot serve, but it never learns more than was granted.
    """
    return (
        (granted.kind, granted.grantee, granted.handling) == (requested.kind, requested.grantee, requested.handling)
        and granted.purposes <= requested.purposes
        and granted.questions <= requested.questions
        and granted.necessary <= requested.necessary
        and granted.optional <= requested.optional
        and requested.data_from <= granted.data_from
        and granted.data_to <= requested.data_to
        and requested.not_before <= granted.not_before
        and granted.not_after <= requested.not_after
        and granted.quota_per_month <= requested.quota_per_month
        and granted.explicit_special <= requested.explicit_special
        and granted.influence_opt_in <= requested.influence_opt_in
        and granted.agent_allowed <= requested.agent_allowed
        and granted.post_mortem <= requested.post_mortem
    )


def parse_terms(r: Reader) -> Terms:
    """Read the terms out of a consent or a consent request.

    Raises:
        BadConsent: They have another shape, an unknown term or contradict each other.
    """
    categories: dict[Necessity, set[Category]] = {necessity: set() for necessity in Necessity}
    last = ""
    for item in r.objects("pii_information", at_most=_MAX_TERMS):
        category = item.word("pii_type", parse_category)
        if category <= last:
            raise r.refusal("pii_information", "must list different pii_types in ascending order")
        categories[item.word("necessity", Necessity)].add(category)
        item.end()
        last = category
    terms = Terms(
        kind=r.word("kind", ConsentKind),
        grantee=r.text("grantee", _GRANTEE),
        purposes=frozenset(r.words("purposes", parse_purpose, at_most=_MAX_TERMS)),
        questions=frozenset(r.words("questions", QuestionKind, at_most=len(QuestionKind))),
        necessary=frozenset(categories[Necessity.NECESSARY]),
        optional=frozenset(categories[Necessity.OPTIONAL]),
        data_from=r.word("data_from", parse_period),
        data_to=r.word("data_to", parse_period),
        not_before=r.time("not_before"),
        not_after=r.time("not_after"),
        quota_per_month=_parse_quota(r.object("quota")),
        explicit_special=frozenset(r.words("explicit_special", _parse_special, at_most=_MAX_TERMS)),
        influence_opt_in=r.flag("influence_opt_in"),
        agent_allowed=r.flag("agent_allowed"),
        post_mortem=frozenset(r.words("post_mortem", parse_purpose, at_most=_MAX_TERMS)),
        handling=_parse_handling(r.object("handling")),
    )
    r.end()
    return terms


def _parse_special(text: str) -> Category:
    category = parse_category(text)
    if not is_special(category):
        raise MalformedInput("Only special categories take an explicit opt-in.")
    return category


def _parse_location(text: str) -> str:
    if _SENTENCE.fullmatch(text) is None:
        raise MalformedInput("A storage location is one line of up to 300 characters.")
    return text


def _parse_quota(r: Reader) -> int:
    r.exactly("per", "P1M")
    n = r.integer("n", 0, MAX_ANSWERS_PER_MONTH)
    r.end()
    return n


def _parse_handling(r: Reader) -> Handling:
    handling = Handling(
        controller=r.text("pii_controllers", _SENTENCE, _ONE_LINE),
        jurisdiction=r.text("jurisdiction", _SENTENCE, _ONE_LINE),
        storage_locations=r.words("storage_locations", _parse_location, at_most=16),
        retention_period=r.text("retention_period", _DURATION, "a duration such as P30D, P6M or P1Y"),
        withdrawal_method=r.text("withdrawal_method", _SENTENCE, _ONE_LINE),
        privacy_rights=r.text("privacy_rights", _SENTENCE, _ONE_LINE),
    )
    r.end()
    return handling


def dump_terms(terms: Terms) -> JsonObject:
    """Return the terms as the object inside a consent or a consent request."""
    handling = terms.handling
    return {
        "kind": terms.kind.value,
        "grantee": terms.grantee,
        "purposes": _ordered(terms.purposes),
        "questions": _ordered(kind.value for kind in terms.questions),
        "pii_information": [
            {"pii_type": category, "necessity": "necessary" if category in terms.necessary else "optional"}
            for category in sorted(terms.categories)
        ],
        "data_from": terms.data_from,
        "data_to": terms.data_to,
        "not_before": terms.not_before,
        "not_after": terms.not_after,
        "quota": {"n": terms.quota_per_month, "per": "P1M"},
        "explicit_special": _ordered(terms.explicit_special),
        "influence_opt_in": int(terms.influence_opt_in),
        "agent_allowed": int(terms.agent_allowed),
        "post_mortem": _ordered(terms.post_mortem),
        "handling": {
            "pii_controllers": handling.controller,
            "jurisdiction": handling.jurisdiction,
            "storage_locations": _ordered(handling.storage_locations),
            "retention_period": handling.retention_period,
            "withdrawal_method": handling.withdrawal_method,
            "privacy_rights": handling.privacy_rights,
        },
    }


def _ordered(texts: Iterable[str]) -> list[JsonValue]:
    return cast("list[JsonValue]", sorted(texts))
