"""Every term has a label in every language."""

from __future__ import annotations

import pytest

from vault.schema.category import CATEGORIES, MINTED_PURPOSES, PURPOSES
from vault.schema.language import LABELS, Language


@pytest.mark.parametrize("language", Language)
def test_every_term_has_a_label_of_its_own(language: Language) -> None:
    labels = LABELS[language]
    assert labels.keys() == CATEGORIES.keys() | PURPOSES.keys() | MINTED_PURPOSES
    assert len(set(labels.values())) == len(labels), "two terms with one label could not be told apart in a notice"
    assert all(label == label.strip() and label for label in labels.values())
