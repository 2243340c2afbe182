"""The head of visits: learned by the audited descent, at its charge, and no person moves what is released further."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vault.imprint.funnel import DIGEST, SIZE, facts, without_page_value
from vault.imprint.noise import Integers
from vault.schema.answer import Confidence
from vault.schema.session import Session, Visitor
from vault.twin import visits
from vault.twin.funnel import HIDDEN, Head, dump_head, foretell, parse_head, shipped
from vault.twin.infer import GRID_PPM, MOST_PPM
from vault.twin.reader import BadBackbone
from vault.twin.train import accounted_epsilon, private_descent
from vault.twin.visits import CHARGES, DESCENT, Visits, calibrate, train_head


class NoNoise:
    """Stands in for the discrete Gaussian: an injected fault that shows what noise hides."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def sample(self, shape: tuple[int, ...]) -> Integers:
        return np.zeros(shape, dtype=np.int64)


def drawn(people: int, seed: int = 1) -> Visits:
    """Draw visits whose outcome follows the page value, and else the pages."""
    random = np.random.default_rng(seed)
    made = [
        Session(
            product_pages=int(random.integers(1, 60)),
            page_value_milli=int(random.integers(0, 2)) * 50_000,
            month=int(random.integers(1, 13)),
        )
        for _ in range(people)
    ]
    read = np.stack([facts(session) for session in made])
    odds = 5.0 * read[:, -2] + 4.0 * read[:, 4] - 5.0
    return Visits(read, (random.random(people) < 1 / (1 + np.exp(-odds))).astype(np.float32))


def test_the_charges_stay_within_a_persons_year() -> None:
    assert accounted_epsilon(CHARGES) <= 3.0
    _, manifest = shipped()
    assert manifest.charges == CHARGES
    assert manifest.epsilon_ppm == math.ceil(accounted_epsilon(CHARGES) * 1e6)


def test_a_head_is_learned_through_the_audited_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the certificate's audit runs is what trained the head, with its whole noise."""
    asked = []

    def watched(*args: object, **options: object) -> object:
        asked.append((args[3], args[4]))
        return private_descent(*args, **options)

    monkeypatch.setattr(visits, "private_descent", watched)
    train_head(drawn(60), 60.0, replace(DESCENT, steps=2))
    assert asked == [(replace(DESCENT, steps=2), 60.0)]


def test_training_learns_what_there_is_to_learn() -> None:
    torch.manual_seed(0)
    quiet = replace(DESCENT, noise_multiplier=0.01, sample_rate=0.5, steps=60)
    found, others = drawn(400), drawn(400, seed=2)
    head = train_head(found, 400.0, quiet)
    odds = head.log_odds(others.facts)
    bought = others.bought == 1
    assert (odds[bought][:, None] > odds[~bought][None, :]).mean() > 0.8


def test_calibration_moves_each_mean_to_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "DiscreteGaussian", NoNoise)
    some = drawn(500)
    nothing, low = np.zeros(HIDDEN, dtype=np.float32), np.full(1, -1.0, dtype=np.float32)
    shy = Head(DIGEST, np.zeros((HIDDEN, SIZE), dtype=np.float32), nothing, nothing, low, nothing[:2])

    def worst_gap(head: Head) -> float:
        means = [(1 / (1 + np.exp(-head.log_odds(f)))).mean() for f in (some.facts, without_page_value(some.facts))]
        return max(abs(float(mean - some.bought.mean())) for mean in means)

    assert worst_gap(shy) > 0.15
    assert worst_gap(calibrate(shy, some)) < 0.05


@pytest.mark.parametrize("length", [visits._CALIBRATION_LENGTH, visits._MEASURED_LENGTH])
def test_no_person_moves_a_released_sum_further_than_its_noise_is_for(
    monkeypatch: pytest.MonkeyPatch, length: float
) -> None:
    scales = []

    class Watched(NoNoise):
        def __init__(self, sigma: float) -> None:
            scales.append(sigma)
            super().__init__(sigma)

    monkeypatch.setattr(visits, "DiscreteGaussian", Watched)
    worst = (
        np.array([[1.0, -1.0, 0.25, 0.25]]) if length == visits._CALIBRATION_LENGTH else np.array([[1.0, -1.0, 1.0]])
    )
    moved = visits._release(worst, length) - visits._release(worst[:0], length)
    assert np.linalg.norm(moved) <= length
    assert all(scale >= visits._NOISE * length * visits._UNIT for scale in scales)


def test_a_head_survives_its_bytes_and_nothing_else_is_one() -> None:
    head, _ = shipped()
    data = dump_head(head)
    assert dump_head(parse_head(data)) == data
    assert parse_head(data).digest == head.digest
    infinite = data[:40] + np.float32(np.inf).tobytes() + data[44:]
    for broken in (b"", data[:-4], data + bytes(4), b"X" + data[1:], data[:8] + bytes(32) + data[40:], infinite):
        with pytest.raises(BadBackbone):
            parse_head(broken)


def test_probabilities_lie_on_the_public_grid_and_fall_with_the_funnel() -> None:
    head, _ = shipped()
    far = Session(product_pages=30, product_s=1_200, page_value_milli=60_000, month=11, visitor=Visitor.NEW)
    near = Session(product_pages=1, exit_rate_ppm=200_000, bounce_rate_ppm=200_000, page_value_milli=0, month=2)
    (high,), (low,) = foretell(head, far).predictions, foretell(head, near).predictions
    assert high.score_ppm > low.score_ppm
    many = [
        replace(far, product_pages=pages, page_value_milli=value) for pages in (1, 9, 30) for value in (-1, 0, 9_000)
    ]
    scores = {prediction.score_ppm for visit in (far, near, *many) for prediction in foretell(head, visit).predictions}
    assert len(scores) > 4
    for score in scores:
        assert score % GRID_PPM == 0
        assert GRID_PPM <= score <= MOST_PPM
    assert foretell(head, far).confidence in {Confidence.MEDIUM, Confidence.HIGH}
    unknown = foretell(head, replace(far, page_value_milli=-1))
    assert unknown.confidence in {Confidence.LOW, Confidence.MEDIUM}
    assert foretell(head, Session()).confidence is Confidence.NONE
