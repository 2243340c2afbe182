"""What a person meets in a month is bounded over all companies, at any concurrency, and nothing says what it was."""

from __future__ import annotations

import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.consent_kit import NOW, World, spending
from tests.vault_kit import PURCHASE
from vault.consent import events, exposure
from vault.consent.exposure import NOTHING, Addition, Exposure, ExposureSpent, RankedMeanwhile
from vault.schema.category import Category
from vault.schema.consent import ConsentVersion

THREADS = 16
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
KEY = b"k" * 32


def read(world: World, now: datetime = NOW, key: bytes = KEY) -> Exposure:
    with world.database.snapshot() as session:
        return exposure.read(session, world.owner.vault, now, key)


def meet(world: World, version: ConsentVersion, addition: Addition, now: datetime = NOW) -> None:
    with world.database.transaction() as session:
        events.spend(session, spending(world, version, addition), now)


def rank(world: World, version: ConsentVersion, codes: str, shown: int = 1) -> Addition:
    """Decide and spend as the one path does, which decides again if others were faster."""
    while True:
        addition = read(world).ranking(PURCHASE, codes, shown)
        try:
            meet(world, version, addition)
        except RankedMeanwhile:
            continue
        return addition


def left(found: Exposure) -> tuple[int, int, int]:
    return (
        exposure.STIMULI_PER_MONTH - found.stimuli,
        exposure.CANDIDATES_PER_MONTH - found.candidates,
        exposure.VARIATIONS_PER_MONTH - found.variations,
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "STIMULI_PER_MONTH", 10)
    monkeypatch.setattr(exposure, "CANDIDATES_PER_MONTH", 8)
    monkeypatch.setattr(exposure, "VARIATIONS_PER_MONTH", 3)


@pytest.mark.usefixtures("small")
def test_it_is_counted_over_all_consents_of_a_person_and_month(world: World) -> None:
    first, second = world.give(quota_per_month=50), world.give(quota_per_month=50)
    rank(world, first, "abc", shown=3)
    rank(world, second, "abd", shown=2)
    assert left(read(world)) == (5, 4, 2)
    assert left(read(world, DECEMBER)) == (10, 8, 3)
    meet(world, first, NOTHING)
    assert left(read(world)) == (5, 4, 2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "addition", [Addition(stimuli=11), Addition(variations=4), Addition(new="0123abcd" * 9), Addition(8, 0, "0123abcd")]
)
def test_what_passes_one_limit_spends_nothing(world: World, addition: Addition) -> None:
    version = world.give(quota_per_month=50)
    for before in (NOTHING, Addition(3, 0, "89abcdef")):
        meet(world, version, before)
        found = read(world)
        if addition.stimuli != 8 or before != NOTHING:
            with pytest.raises(ExposureSpent):
                meet(world, version, replace(addition, seen_chars=len(found.ranked)))
        assert read(world) == found
    with world.database.transaction() as session:
        assert events.spend(session, spending(world, version), NOW).quota_left == 47


def test_what_adds_nothing_passes_no_limit_that_was_lowered_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.give(quota_per_month=50)
    for codes in ("abcd", "abcd", "abcd"):
        rank(world, version, codes, shown=5)
    for limit in ("STIMULI_PER_MONTH", "CANDIDATES_PER_MONTH", "VARIATIONS_PER_MONTH"):
        monkeypatch.setattr(exposure, limit, 1)
    seen_chars = len(read(world).ranked)
    for more in (Addition(stimuli=1), Addition(variations=1), Addition(new="t" * 8, seen_chars=seen_chars)):
        assert len(read(world).exceeded_by(more)) == 1
        with pytest.raises(ExposureSpent):
            meet(world, version, more)
    for limit in ("CANDIDATES_PER_MONTH", "VARIATIONS_PER_MONTH"):
        monkeypatch.setattr(exposure, limit, 0)
    monkeypatch.setattr(exposure, "STIMULI_PER_MONTH", 100)
    shown = Addition(stimuli=1)
    assert read(world).exceeded_by(shown) == []
    meet(world, version, shown)


def test_the_same_candidates_are_new_once_whatever_is_said_about_them(world: World) -> None:
    version = world.give(quota_per_month=50)
    assert rank(world, version, "abcd").candidates == 4
    assert rank(world, version, "dcba") == Addition(1, 1, "", 32)
    other = read(world).ranking(Category("pd:Location"), "abcd", 1)
    assert (other.candidates, other.variations) == (4, 0)


@pytest.mark.parametrize(
    ("codes", "varies"),
    [
        ("abcd", True), ("abcdx", True), ("abxy", True), ("axyz", False), ("wxyz", False), ("a", True), ("x", True),
        ("xy", False), ("ax", True), ("axy", False), ("abxyz", False),
    ],
)  # fmt: skip
def test_a_variation_has_at_most_half_or_one_of_its_candidates_new(world: World, codes: str, varies: bool) -> None:
    version = world.give(quota_per_month=50)
    rank(world, version, "abcd")
    assert read(world).ranking(PURCHASE, codes, 1).variations == varies


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("addition", "exceeds"),
    [
        (Addition(2, 1, "0123abcd" * 3), []),
        (Addition(3, 1, "0123abcd" * 3), ["stimuli"]),
        (Addition(2, 2, "0123abcd" * 3), ["variations"]),
        (Addition(2, 1, "0123abcd" * 4), ["candidates"]),
        (Addition(9, 9, "0123abcd" * 9), ["candidates", "stimuli", "variations"]),
        (NOTHING, []),
    ],
)
def test_a_decision_names_the_limits_that_would_be_passed(addition: Addition, exceeds: list[str]) -> None:
    assert Exposure(8, 2, "89abcdef" * 5, KEY).exceeded_by(addition) == exceeds
    assert Exposure(99, 99, "89abcdef" * 99, KEY).exceeded_by(NOTHING) == []


@settings(max_examples=60)
@given(st.lists(st.sets(st.sampled_from(string.ascii_letters), min_size=1), max_size=30))
def test_whoever_searches_runs_out(asked: list[set[str]]) -> None:
    """Every ranking costs a variation or at least two candidates, so no order of questions asks for ever."""
    met, seen = Exposure(0, 0, "", KEY), set[str]()
    for codes in asked:
        addition = met.ranking(PURCHASE, sorted(codes), 1)
        assert addition.variations == 1 or addition.candidates >= 2
        assert addition.candidates == len(codes - seen)
        met = Exposure(0, met.variations + addition.variations, met.ranked + addition.new, KEY)
        seen |= codes
    assert met.candidates == len(seen)


def test_tags_say_nothing_without_the_key_and_differ_by_person_and_month(world: World) -> None:
    other = World(world.database, world.shortkeys)
    found = [
        read(world).ranking(PURCHASE, "a", 1).new,
        read(world, key=b"x" * 32).ranking(PURCHASE, "a", 1).new,
        read(world, DECEMBER).ranking(PURCHASE, "a", 1).new,
        read(other).ranking(PURCHASE, "a", 1).new,
    ]
    assert len(set(found)) == 4


def test_what_others_ranked_meanwhile_is_decided_again(world: World) -> None:
    version = world.give(quota_per_month=50)
    met = read(world)
    rank(world, version, "abc")
    with pytest.raises(RankedMeanwhile):
        meet(world, version, met.ranking(PURCHASE, "abcd", 1))
    assert rank(world, version, "abcd").variations == 1
    with world.database.transaction() as session:
        assert events.spend(session, spending(world, version), NOW).quota_left == 47  # the refused one spent nothing


@pytest.mark.usefixtures("small")
def test_what_others_ranked_meanwhile_is_not_counted_as_new_against_the_limit(world: World) -> None:
    version = world.give(quota_per_month=50)
    met = read(world)
    rank(world, version, "abcd")
    rank(world, version, "abce")
    with pytest.raises(RankedMeanwhile):  # its four are nine with the five of others, though only one of them is new
        meet(world, version, met.ranking(PURCHASE, "abcf", 1))
    assert rank(world, version, "abcf").candidates == 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("codes", "given"),
    [
        (lambda i: "abcd", 1 + 3),  # once new, then variations
        (lambda i: string.ascii_letters[i], 3),  # one by one
        (lambda i: string.ascii_letters[2 * i : 2 * i + 2], 4),  # two new ones each
        (lambda i: "abc" + string.ascii_letters[i + 3], 1 + 3),  # one changed each time
    ],
)
def test_no_limit_is_passed_at_any_concurrency(world: World, codes: Callable[[int], str], given: int) -> None:
    consents = [world.give(quota_per_month=50) for _ in range(4)]

    def ask(i: int) -> bool:
        try:
            rank(world, consents[i % 4], codes(i))
        except ExposureSpent:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(ask, range(THREADS))) == given
    assert min(left(read(world))) >= 0


@pytest.mark.usefixtures("small")
def test_stimuli_hold_under_concurrency(world: World) -> None:
    consents = [world.give(quota_per_month=50) for _ in range(4)]

    def ask(i: int) -> bool:
        try:
            meet(world, consents[i % 4], Addition(stimuli=3))
        except ExposureSpent:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(ask, range(THREADS))) == 3
    assert read(world).stimuli == 9


def test_erasure_forgets_it(world: World) -> None:
    from vault.consent import changes

    rank(world, world.give(quota_per_month=50), "abc")
    with world.database.transaction() as session:
        changes.forget(session, world.owner.vault)
    assert read(world).ranked == ""
