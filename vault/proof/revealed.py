"""What a decision was told that an answer could reveal, held against the question by whoever holds that.

A service that tells its rules of nothing lets an answer through that a rule would have forbidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vault.encoding import JsonValue
from vault.proof.errors import InvalidProof
from vault.schema.category import Category
from vault.schema.question import Question


class Classifier(NamedTuple):
    """A published classifier of special categories, as the caller brings it.

    Args:
        version: Its name, which an answer's leaf gives.
        least: Returns what an answer to a question reveals at the least, from the question, the digest of the feature
            map that its model reads and the consent's explicit special categories, which alone may be added to that;
            None where it does not know the map.
    """

    version: str
    least: Callable[[Question, bytes, frozenset[Category]], frozenset[Category] | None]


def verify_revealed(
    classifier: Classifier, question: Question, map_sha256: bytes, opted_in: frozenset[Category], said: JsonValue
) -> None:
    """Check what a decision was told that an answer could reveal.

    Args:
        classifier: Of the version that the answer names.
        question: As asked.
        map_sha256: Digest of the feature map of the model that answered.
        opted_in: The consent's explicit special categories.
        said: `reveals` of the decision.

    Raises:
        InvalidProof: It was told of less than the question could reveal, or of something else.
    """
    least = classifier.least(question, map_sha256, opted_in)
    if least is None:
        return
    told = said if isinstance(said, list) else []
    if not {*map(str, least)} <= {*map(str, told)} <= {*map(str, least | opted_in)}:
        raise InvalidProof("The decision was told of other special categories than the question could reveal.")
