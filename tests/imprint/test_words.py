"""A text is about the published coordinates that its words name, and says the same on every machine."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vault.imprint import words
from vault.imprint.features import Cadence, feature_map
from vault.imprint.words import BadWords, words_digest, words_of
from vault.schema.category import Category

RETAIL = feature_map(Category("pd:Purchase"))
READABLE = frozenset(RETAIL.codes[:-2])
_texts = st.text(max_size=200)


def about(*texts: str, readable: frozenset[str] = READABLE) -> np.ndarray:
    found = words_of(RETAIL)
    assert found is not None
    return found.about(texts, readable)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Cat litter, 10 kg", "cat-litter"),
        ("FROZEN PIZZA MARGHERITA", "frozen-pizza"),
        ("red wine bordeaux", "misc-wine"),
        ("AA batteries (4x)", "batteries"),
        ("infant milk formula", "infant-formula"),
        ("shampoo", "hair-care-products"),
    ],
)
def test_a_text_is_about_the_coordinate_that_it_names(text: str, code: str) -> None:
    row = about(text)[0]
    assert RETAIL.codes[int(row.argmax())] == f"completejourney:{code}"


@pytest.mark.parametrize("text", ["", "   ", "12345", "!?", "\U0001f95b", "laptop"])
def test_a_text_that_names_no_good_of_the_map_is_about_nothing(text: str) -> None:
    assert not about(text).any()


def test_letters_case_and_numbers_say_nothing() -> None:
    first, second = about("Dog Food 15KG", "dog food kg")
    assert first.any()
    assert np.array_equal(first, second)


def test_what_may_not_be_read_is_passed_over() -> None:
    code = "completejourney:cat-litter"
    everything, rest = about("cat litter")[0], about("cat litter", readable=READABLE - {code})[0]
    at = RETAIL.codes.index(code)
    assert everything[at]
    assert not rest[at]
    assert np.array_equal(np.delete(everything, at), np.delete(rest, at))


@settings(max_examples=20)
@given(st.lists(_texts, min_size=1, max_size=8), st.randoms())
@example(["cat litter", "frozen pizza", "red wine"], Random(1))
def test_a_text_says_the_same_alone_and_among_others(texts: list[str], random: object) -> None:
    together = about(*texts)
    assert together.dtype == np.int16
    assert ((together >= 0) & (together <= 10_100)).all()
    order = list(range(len(texts)))
    random.shuffle(order)
    assert np.array_equal(about(*(texts[at] for at in order)), together[order])
    assert np.array_equal(about(texts[-1])[0], together[-1])


def test_products_of_rows_are_exact_in_whatever_order_they_are_added() -> None:
    found = words_of(RETAIL)
    assert found is not None
    long = ["\U0001f95b" * 200, "zzzzqqqq " * 22, "cat litter", *RETAIL.names[:-2]]
    rows = words._vectors(found.files, found.weights, long)
    exact = rows.astype(np.int64) @ found.vectors.astype(np.int64).T
    assert (np.abs(rows.astype(np.int64)) @ np.abs(found.vectors.astype(np.int64)).T < 2**24).all()
    for order in (slice(None), slice(None, None, -1)):
        assert np.array_equal(rows[:, order] @ found.vectors[:, order].T, exact)


def test_what_texts_are_read_by_is_pinned() -> None:
    """Another release of the words, the weights or their reading is another digest: answers name it in the log."""
    assert words_digest(RETAIL).hex() == "0d310b00d1bd94d9908d8de924ba6a129fb289284443ca1c8e1d48606d6a33b9"
    assert words_digest(feature_map(Category("pd:Purchase"), Cadence.DAILY)) == words_digest(RETAIL)
    found = words_of(RETAIL)
    assert found is not None
    made = hashlib.sha256(found.vectors.tobytes() + found.weights.tobytes() + about("oat milk barista").tobytes())
    assert made.hexdigest() == "d9eedbe8d97a2df22fe178fd79ca4eba15527ae5d9a5060961f2db1a34c7509a"


def test_other_weights_than_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    record = words._record(RETAIL)
    assert record is not None
    broken = {**record, "files": {**record["files"], "weights": {**record["files"]["weights"], "sha256": "00" * 32}}}
    monkeypatch.setattr(words, "_record", lambda _: broken)
    with pytest.raises(BadWords, match=re.escape("install 0.4.0.post1")):
        words_of.__wrapped__(RETAIL)


def test_words_of_other_coordinates_are_refused() -> None:
    with pytest.raises(BadWords, match="other coordinates"):
        words_of.__wrapped__(replace(RETAIL, codes=RETAIL.codes[1:]))


def test_a_map_without_published_words_reads_no_text() -> None:
    other = replace(RETAIL, hierarchy="unheard-of")
    assert words_of(other) is None
    assert words_digest(other) == b""
