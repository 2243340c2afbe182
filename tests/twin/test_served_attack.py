"""One day more or less shows in served answers no more than the charged noise allows."""

from __future__ import annotations

from tests.served_attack import attack


def test_an_attack_on_served_answers_stays_below_what_the_noise_allows() -> None:
    found = attack(1_000)
    assert 0.0 < found.bound < 0.6
    assert found.low <= found.bound


def test_the_attack_notices_noise_that_is_too_small() -> None:
    found = attack(1_000, noise_over_charged=1 / 10)  # a third shows most times, not always
    assert found.low > found.bound
