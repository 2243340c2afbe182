"""The closed vocabulary of personal data and purposes: an extract of the W3C Data Privacy Vocabulary.

Source: DPV 2.3, https://w3id.org/dpv/2.3; extract and notice in `vault/schema/data`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, NewType

from vault.errors import MalformedInput

Category = NewType("Category", str)
"""A personal-data term such as `pd:Purchase`."""

Purpose = NewType("Purpose", str)
"""A reason for processing such as `dpv:ServicePersonalisation`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the vocabulary.

    Args:
        iri: The full IRI that consent records name.
        label: Its English label.
        definition: Its English definition.
        broader: Terms that contain it, as prefixed names; may lie outside the extract.
        special: Whether the data is of a special category (GDPR article 9).
    """

    iri: str
    label: str
    definition: str
    broader: tuple[str, ...]
    special: bool


def _terms(vocabulary: dict[str, Any], part: str) -> Mapping[str, Term]:
    terms: dict[str, Term] = {}
    for name, term in vocabulary[part].items():
        prefix, local = name.split(":")
        iri = vocabulary["prefixes"][prefix] + local
        broader = tuple(term["broader"])
        terms[name] = Term(iri, term["label"], term["definition"], broader, bool(term.get("special", 0)))
    return MappingProxyType(terms)


_VOCABULARY: Final = json.loads(files("vault.schema").joinpath("data/dpv.json").read_text("utf-8"))
CATEGORIES: Final[Mapping[str, Term]] = _terms(_VOCABULARY, "categories")
PURPOSES: Final[Mapping[str, Term]] = _terms(_VOCABULARY, "purposes")
MINTED_PURPOSES: Final = frozenset({"x:BehaviouralSteering", "x:InfluenceBehaviour", "x:Persuasion"})
"""Purposes that the guardrails name and DPV has no term for."""


def parse_category(text: str) -> Category:
    """Return a category of the closed set.

    Raises:
        MalformedInput: The set has no such term.
    """
    if text not in CATEGORIES:
        raise MalformedInput("A category is not a personal-data term of the vocabulary that TwinVault uses.")
    return Category(text)


def parse_purpose(text: str) -> Purpose:
    """Return a purpose of the closed set.

    Raises:
        MalformedInput: The set has no such term.
    """
    if text not in PURPOSES and text not in MINTED_PURPOSES:
        raise MalformedInput("A purpose is not a term of the vocabulary that TwinVault uses.")
    return Purpose(text)


def is_special(category: Category) -> bool:
    """Say whether a category is a special one (GDPR article 9) and needs its own opt-in."""
    return CATEGORIES[category].special
