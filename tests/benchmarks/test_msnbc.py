"""The news site's benchmark: what it charges bounds what it releases, and a network starts as the counts it was given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import _msnbc_network as network
from benchmarks._msnbc import PAGES, VIEWS, Asked, Counts, best_reading, chances
from benchmarks._private import EPSILONS
from benchmarks._quality_msnbc import DELTA, FULL, QUICK, RELEASE, Size, plan_for
from vault.proof.charge import epsilon_of


def people_of(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pages = rng.integers(1, PAGES + 1, (count, VIEWS)).astype(np.int8)
    pages[rng.random(count) < 0.2] = 5  # the same page all day: the longest vector there is
    pages[np.arange(VIEWS) >= rng.integers(1, VIEWS + 1, count)[:, None]] = 0
    return pages


class Silent:
    """Draws nothing, so that what is released is the exact sum."""

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size)


def test_one_person_moves_all_counts_together_by_at_most_the_clip() -> None:
    people = people_of(12, 1)
    everyone = Counts(people).release(RELEASE, 1.0, Silent())  # type: ignore[arg-type]
    longest = 0.0
    for person in range(len(people)):
        others = Counts(np.delete(people, person, axis=0)).release(RELEASE, 1.0, Silent())  # type: ignore[arg-type]
        weights = [RELEASE.ratio ** (RELEASE.order - order) for order in range(RELEASE.order + 1)]
        moved = [w * (one - two) for w, (one, _), (two, _) in zip(weights, everyone, others, strict=True)]
        longest = max(longest, float(np.linalg.norm(np.concatenate(moved))))
    assert longest == pytest.approx(RELEASE.clip)
    assert [deviation for _, deviation in everyone] == [RELEASE.clip / weight for weight in weights]


@pytest.mark.parametrize("size", [FULL, QUICK])
def test_counts_and_network_together_stay_within_epsilon(size: Size) -> None:
    for epsilon in EPSILONS:
        plan = plan_for(epsilon, size)
        counts, descent = plan.charges()
        assert 0.95 * epsilon < epsilon_of([counts, descent], DELTA) <= epsilon
        assert counts.noise_multiplier_ppm / 1e6 <= plan.counted
        assert (descent.steps, descent.sample_rate_ppm) == (size.steps, round(size.sample_rate * 1e6))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_an_untrained_network_says_what_its_counts_say(order: int) -> None:
    people = people_of(60, 2)
    tables = Counts(people).release(RELEASE, 0.3, np.random.default_rng(0))
    rule = replace(RELEASE, order=order, cut=1.0, strength=5.0)
    table = chances(tables, rule)
    assert table.sum(1) == pytest.approx(1.0)
    start = torch.from_numpy(np.log(table)).float()
    missed = network.tested(network.Network(start, order), torch.from_numpy(people))
    assert missed == pytest.approx(Asked(people).missed(tables, rule), abs=1e-5)


def test_a_context_holds_only_pages_seen_before() -> None:
    one, other = torch.from_numpy(people_of(20, 3)).long(), torch.from_numpy(people_of(20, 4)).long()
    cut = 7
    other[:, :cut] = one[:, :cut]
    assert torch.equal(network.contexts(one, 3)[:, : cut + 1], network.contexts(other, 3)[:, : cut + 1])
    assert not torch.equal(network.contexts(one, 3), network.contexts(other, 3))


def test_reading_without_noise_prefers_what_was_counted() -> None:
    people = np.tile(np.array([1, 2, 3] * 7, dtype=np.int8)[:VIEWS], (300, 1))
    tables = Counts(people).release(RELEASE, 0.0, np.random.default_rng(0))
    rule = best_reading(tables, Asked(people), RELEASE)
    assert float(Asked(people).missed(tables, rule).mean()) < 0.05
    assert rule.order <= RELEASE.order
    assert rule.clip == RELEASE.clip
