"""What a question may name, and what its answer could reveal (`vault.imprint.reveals`).

A candidate of an unknown code is scored by the coordinates that its text is about. Those that the consent does
not opt in to are not read, whatever words the text has: a synonym opens nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from vault.imprint.features import FeatureMap
from vault.imprint.reveals import allowed, names_of, revealed_by, reveals_of_codes
from vault.imprint.words import words_of
from vault.schema.category import Category
from vault.schema.question import NextChoice, Recommend
from vault.seal.ids import ConsentId


class Narrowed(NamedTuple):
    """A question over the codes that it may name.

    Args:
        question: Over candidates.
        reveals: Special categories that the answer could reveal.
        about: int16[candidates, codes] how much each candidate's text is about each published code of the map;
            None where no text is read.
    """

    question: Recommend
    reveals: frozenset[Category]
    about: npt.NDArray[np.int16] | None = None


def narrow(
    question: NextChoice | Recommend, feature_map: FeatureMap, opted_in: frozenset[Category], consent_id: ConsentId
) -> Narrowed:
    """Return the question over the codes it may name, and the special categories that they could reveal.

    A company answers for its own candidates: they stay, and the rules refuse them without an opt-in.
    From `next_choice`, which names no codes itself, those that the consent does not opt in to are left out.

    Args:
        question: As asked.
        feature_map: Of its category.
        opted_in: The consent's explicit special categories.
        consent_id: Under which it is asked; what is kept of a question is kept for the same consent alone.
    """
    match question:
        case Recommend():
            named, known = names_of(feature_map), reveals_of_codes(feature_map)
            reveals = revealed_by(f"{one.code} {named.get(one.code, '')} {one.text}" for one in question.candidates)
            unknown = tuple("" if item.code in named else item.text for item in question.candidates)
            about = _about(feature_map, opted_in, unknown, consent_id) if any(unknown) else None
            if about is not None:
                reveals = reveals.union(*(known[feature_map.codes[at]] for at in np.flatnonzero(about.any(0))))
            return Narrowed(question, reveals, about)
        case NextChoice():
            candidates, reveals = allowed(feature_map, opted_in, len(feature_map.objects))
            return Narrowed(Recommend(question.category, question.purpose, candidates, question.top_n), reveals)
        case _:
            assert_never(question)


# The consent is part of the key: no company finds out, by the time taken, what another one asked.
@lru_cache(maxsize=64)
def _about(
    feature_map: FeatureMap, opted_in: frozenset[Category], texts: tuple[str, ...], _consent_id: ConsentId
) -> npt.NDArray[np.int16] | None:
    words = words_of(feature_map)
    readable = {candidate.code for candidate in allowed(feature_map, opted_in, len(feature_map.objects))[0]}
    return None if words is None else words.about(texts, readable)
