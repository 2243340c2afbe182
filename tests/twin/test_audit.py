"""The audit refutes broken trainers and not the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from tests.trainer_kit import AUDITS, judge, month_is_a_person, with_noise
from vault.proof.certificate import CertificateInvalid
from vault.twin import audit as auditing
from vault.twin.audit import audit, one_run_p_value
from vault.twin.habits import HABITS_SIGMA, noisy_sum
from vault.twin.train import private_training


def test_the_right_trainer_is_not_refuted() -> None:
    found = audit()
    assert found.claimed <= 1.0
    judge(found)


class _Marked(nn.Module):
    """The canaries as one embedding: each moves a row of its own."""

    def __init__(self, canaries: torch.Tensor) -> None:
        super().__init__()
        self.canary = nn.Embedding(len(canaries), 1, _weight=canaries[:, None].clone())

    def forward(self, people: Any) -> torch.Tensor:
        marked: torch.Tensor = self.canary(people["mark"].long())[..., 0] * people["present"]
        return 10.0 * marked.sum(1) / people["present"].sum(1).clamp(min=1.0)


def _by_bookkeeping(_loss: Any, start: Any, people: Any, descent: Any, expected: float) -> Any:
    model = _Marked(start["canary"])
    private_training(model, lambda module, batch: module(batch), people, descent, expected)
    return {**start, "canary": model.canary.weight.detach()[:, 0]}


def test_the_trainer_by_bookkeeping_is_not_refuted() -> None:
    judge(audit(_by_bookkeeping))


def test_book_keeping_with_a_person_split_by_the_loader_is_refuted() -> None:
    found = audit(_by_bookkeeping, month_is_a_person)
    assert found.lower_bound > found.claimed


def test_no_noise_is_refuted_by_canaries_alone() -> None:
    found = AUDITS["no_noise"]()
    assert found.lower_bound > found.claimed
    with pytest.raises(CertificateInvalid):
        judge(found)


def test_a_third_of_the_noise_is_refuted() -> None:
    found = AUDITS["noise_third"]()
    assert found.lower_bound > 0.7
    with pytest.raises(CertificateInvalid):
        judge(found)


def test_a_missing_clip_is_refuted_by_canaries_alone() -> None:
    found = AUDITS["no_clipping"]()
    assert found.lower_bound > found.claimed
    with pytest.raises(CertificateInvalid):
        judge(found)


def test_a_person_split_by_the_loader_is_refuted_by_canaries_alone() -> None:
    found = AUDITS["wrong_unit"]()
    assert found.lower_bound > found.claimed
    with pytest.raises(CertificateInvalid):
        judge(found)


_ONCE = noisy_sum([], 4_000, HABITS_SIGMA)


def _unclipped(contributions: Iterable[np.ndarray], size: int, sigma: int) -> np.ndarray:
    return noisy_sum([], size, sigma) + sum(some.sum(0) for some in contributions)


@pytest.mark.parametrize(
    ("add", "sentence"),
    [
        (lambda some, size, sigma: noisy_sum(some, size, max(sigma // 3, 1)), "noise is not what is charged"),
        (lambda some, size, sigma: noisy_sum(some, size, sigma) if size < 4_000 else _ONCE, "repeats its noise"),
        (_unclipped, "beyond the clip"),
    ],
)
def test_a_broken_sum_over_people_is_refuted(
    add: Callable[..., np.ndarray], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "_checks", lambda *_: (1.0, 0.0, 1.0))  # the descent's part is right
    with pytest.raises(CertificateInvalid, match=sentence):
        judge(audit(add=add))
    judge(audit())


def test_noise_used_again_is_refuted() -> None:
    found = AUDITS["same_noise"]()
    with pytest.raises(CertificateInvalid, match="noise"):
        judge(found)


def test_noise_repeated_between_runs_is_refuted() -> None:
    def seeded(*arguments: Any) -> Any:
        state = np.random.default_rng(5)
        noise = lambda shape: torch.from_numpy(state.standard_normal(tuple(shape)))  # noqa: E731 -- one line of fault
        return with_noise(noise)(*arguments)

    with pytest.raises(CertificateInvalid, match="repeats"):
        judge(audit(seeded))


@pytest.mark.parametrize(("guesses", "right", "epsilon"), [(200, 130, 0.3), (600, 420, 0.5), (4_000, 2_600, 0.4)])
def test_the_bound_is_the_theorems(guesses: int, right: int, epsilon: float) -> None:
    chance = np.exp(epsilon) / (np.exp(epsilon) + 1)
    slack = max(
        (binom.sf(right - i - 1, guesses, chance) - binom.sf(right - 1, guesses, chance)) / i
        for i in range(1, right + 1)
    )
    expected = binom.sf(right - 1, guesses, chance) + 2 * 4_000 * 1e-6 * slack
    assert one_run_p_value(guesses, right, epsilon, 1e-6, 4_000) == pytest.approx(min(1.0, expected), rel=1e-6)


@pytest.mark.slow
def test_false_alarms_are_rare() -> None:
    for _ in range(20):
        judge(audit())
