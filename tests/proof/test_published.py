"""The names that a verifier knows are those of what this release ships."""

from __future__ import annotations

from vault.imprint.features import Cadence, NoFeatureMap, feature_map
from vault.imprint.reveals import VERSION
from vault.imprint.words import words_digest
from vault.proof.published import CLASSIFIERS, WORDS
from vault.schema.category import CATEGORIES, parse_category


def test_a_verifier_knows_the_classifier_and_the_words_of_every_map_that_this_release_ships() -> None:
    assert CLASSIFIERS[-1] == VERSION
    shipped = {}
    for category in map(parse_category, CATEGORIES):
        for cadence in Cadence:
            try:
                found = feature_map(category, cadence)
            except NoFeatureMap:
                continue
            shipped[found.digest] = words_digest(found)
    assert any(shipped.values())
    assert shipped == {digest: WORDS.get(digest, b"") for digest in shipped}, "a map without words reads no text"
