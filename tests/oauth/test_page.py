"""The language of the page at /authorize is read from a header that anybody may send."""

from __future__ import annotations

import pytest

from vault.oauth.page import language_of
from vault.schema.language import Language


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", Language.EN),
        ("FR", Language.FR),
        ("fr ; q=0.4 , en ; q=0.3", Language.FR),
        ("fr;q=2, en", Language.EN),
        ("fr;q=, fr;q=0.1.2, fr;level=1", Language.EN),
        ("french", Language.EN),
    ],
)
def test_the_heaviest_language_that_there_is_counts(accepted: str, language: Language) -> None:
    assert language_of(accepted) is language


@pytest.mark.parametrize("filling", [" ", "fr ", "fr;", "-", ", "])
def test_no_header_is_read_again_and_again(filling: str) -> None:
    """What takes its length squared would take half an hour for one of these, and this test would not end."""
    assert language_of(f"en{500_000 * filling}x, fr;q=0.9") in set(Language)
    assert language_of(f"en;q=0.1,{500_000 * filling}x, fr;q=0.9") is Language.FR
