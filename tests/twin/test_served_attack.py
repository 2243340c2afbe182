"""One day more or less shows in served answers no more than the charged noise allows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.served_attack import Attack, attack, attack_days
from tests.twin.lens_kit import with_habits

through_a_lens = partial(attack_days, model=with_habits())


@pytest.mark.parametrize(
    ("tried", "answers"),
    [(attack, 1_000), pytest.param(attack_days, 500, marks=pytest.mark.slow), (through_a_lens, 500)],
)
def test_an_attack_on_served_answers_stays_below_what_the_noise_allows(
    tried: Callable[..., Attack], answers: int
) -> None:
    found = tried(answers)
    assert 0.0 < found.bound < 0.6
    assert found.low <= found.bound


@pytest.mark.parametrize(
    ("tried", "answers", "noise"),
    [
        (attack, 1_000, 1 / 10),
        pytest.param(attack_days, 500, 1 / 50, marks=pytest.mark.slow),
        (through_a_lens, 500, 1 / 50),
    ],
)
def test_the_attack_notices_noise_that_is_too_small(tried: Callable[..., Attack], answers: int, noise: float) -> None:
    found = tried(answers, noise_over_charged=noise)  # a third shows most times, not always
    assert found.low > found.bound
