"""The audit refutes broken trainers and not the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from vault.proof.certificate import Certificate, CertificateInvalid, Charge, Manifest, People, verify_certificate
from vault.twin import train as trainer
from vault.twin.audit import AuditResult, audit, one_run_p_value
from vault.twin.train import accounted_epsilon, group_people, private_descent

Descend = Callable[..., Any]
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _judge(found: AuditResult) -> None:
    """Put findings into an otherwise perfect manifest, so that only they can fail it."""
    ppm = {
        name: round(value * 1e6)
        for name, value in (
            ("audit_claimed_ppm", found.claimed),
            ("audit_lower_bound_ppm", found.lower_bound),
            ("noise_ratio_ppm", found.noise_ratio),
            ("noise_repeats_ppm", found.noise_repeats),
            ("contribution_ratio_ppm", found.contribution_ratio),
        )
    }
    certificate = Certificate(
        audit_canaries=4_000, gain_ppm=10_000, calibration_gap_ppm=0, noise_sd_ppm=1_000, held_out=80, **ppm
    )
    charges = (
        Charge("training", People.TRAINED, 5_000_000, 200_000, 40),
        Charge("certificate", People.HELD_OUT, 2_000_000, 1_000_000, 1),
    )
    epsilon_ppm = round(accounted_epsilon(charges) * 1e6)
    trained_at = int(NOW.timestamp())
    verify_certificate(
        Manifest(bytes(32), bytes(32), bytes(32), trained_at, 400, epsilon_ppm, 1_000_000, charges, certificate), NOW
    )


def _with_noise(noise: Callable[[torch.Size], torch.Tensor]) -> Descend:
    def descend(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "gaussian", noise)
            return private_descent(*arguments)

    return descend


def _unclipped(loss: Any, start: Any, people: Any, descent: Any, expected: float) -> Any:
    wide = replace(descent, clip=descent.clip * 1e6, noise_multiplier=descent.noise_multiplier / 1e6)
    return private_descent(loss, start, people, wide, expected)


def _record_is_a_person(person: np.ndarray, columns: Any) -> Any:
    return group_people(np.arange(len(person)), columns)


def _same_noise() -> Callable[[torch.Size], torch.Tensor]:
    drawn: dict[torch.Size, torch.Tensor] = {}
    real = trainer.gaussian
    return lambda shape: drawn.setdefault(shape, real(shape))


def test_the_right_trainer_is_not_refuted() -> None:
    found = audit()
    assert found.claimed <= 1.0
    _judge(found)


def test_no_noise_is_refuted_by_canaries_alone() -> None:
    found = audit(_with_noise(torch.zeros))
    assert found.lower_bound > found.claimed
    with pytest.raises(CertificateInvalid):
        _judge(found)


def test_a_third_of_the_noise_is_refuted() -> None:
    real = trainer.gaussian
    found = audit(_with_noise(lambda shape: real(shape) / 3))
    assert found.lower_bound > 0.7
    with pytest.raises(CertificateInvalid):
        _judge(found)


def test_a_missing_clip_is_refuted_by_canaries_alone() -> None:
    found = audit(_unclipped)
    assert found.lower_bound > found.claimed
    with pytest.raises(CertificateInvalid):
        _judge(found)


def test_a_person_split_by_the_loader_is_refuted_by_canaries_alone() -> None:
    found = audit(group=_record_is_a_person)
    assert found.lower_bound > found.claimed
    with pytest.raises(CertificateInvalid):
        _judge(found)


def test_noise_used_again_is_refuted() -> None:
    found = audit(_with_noise(_same_noise()))
    with pytest.raises(CertificateInvalid, match="noise"):
        _judge(found)


def test_noise_repeated_between_runs_is_refuted() -> None:
    def seeded(*arguments: Any) -> Any:
        state = np.random.default_rng(5)
        noise = lambda shape: torch.from_numpy(state.standard_normal(tuple(shape)))  # noqa: E731 -- one line of fault
        return _with_noise(noise)(*arguments)

    with pytest.raises(CertificateInvalid, match="repeats"):
        _judge(audit(seeded))


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
        _judge(audit())
