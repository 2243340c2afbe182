"""Trainers that are broken on purpose, and a certificate in which only the audit can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from vault.proof.certificate import Certificate, Manifest, verify_certificate
from vault.proof.charge import Charge, People
from vault.twin import train as trainer
from vault.twin.audit import AuditResult, audit
from vault.twin.audit_rows import RowsAudit
from vault.twin.train import accounted_epsilon, group_people, private_descent

Descend = Callable[..., Any]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
CLEAN = AuditResult(claimed=0.99, lower_bound=0.2, noise_ratio=1.0, noise_repeats=0.0, contribution_ratio=1.0)
CLEAN_ROWS = RowsAudit(noise_ratio=1.0, noise_repeats=0.0, contribution_ratio=1.0)


def judge(found: AuditResult = CLEAN, rows: RowsAudit = CLEAN_ROWS) -> None:
    """Put findings of a trainer, or of the making of rows, into an otherwise perfect manifest, so that only they can fail it.

    Raises:
        CertificateInvalid: They do.
    """
    ppm = {
        name: round(value * 1e6)
        for name, value in (
            ("audit_claimed_ppm", found.claimed),
            ("audit_lower_bound_ppm", found.lower_bound),
            ("noise_ratio_ppm", found.noise_ratio),
            ("noise_repeats_ppm", found.noise_repeats),
            ("contribution_ratio_ppm", found.contribution_ratio),
            ("rows_noise_ratio_ppm", rows.noise_ratio),
            ("rows_noise_repeats_ppm", rows.noise_repeats),
            ("rows_contribution_ratio_ppm", rows.contribution_ratio),
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


def with_noise(noise: Callable[[torch.Size], torch.Tensor]) -> Descend:
    """Return the production descent with another source of noise."""

    def descend(*arguments: Any) -> Any:
        with patch.object(trainer, "gaussian", noise):
            return private_descent(*arguments)

    return descend


def same_noise() -> Descend:
    """Return a descent that draws its noise once and adds it again in every step and run."""
    drawn: dict[torch.Size, torch.Tensor] = {}
    real = trainer.gaussian
    return with_noise(lambda shape: drawn.setdefault(shape, real(shape)))


def noise_third() -> Descend:
    """Return a descent with a third of the noise that it is charged for."""
    real = trainer.gaussian
    return with_noise(lambda shape: real(shape) / 3)


def unclipped(loss: Any, start: Any, people: Any, descent: Any, expected: float) -> Any:
    """Descend with the configured noise and without the clip."""
    wide = replace(descent, clip=descent.clip * 1e6, noise_multiplier=descent.noise_multiplier / 1e6)
    return private_descent(loss, start, people, wide, expected)


def month_is_a_person(person: np.ndarray, columns: Any) -> Any:
    """Load records by person and month: somebody of four months becomes four people."""
    return group_people(person * 1_000_000 + np.asarray(columns["month"], dtype=np.int64), columns)


AUDITS: dict[str, Callable[[], AuditResult]] = {
    "correct": audit,
    "no_noise": lambda: audit(with_noise(torch.zeros)),
    "noise_third": lambda: audit(noise_third()),
    "no_clipping": lambda: audit(unclipped),
    "wrong_unit": lambda: audit(group=month_is_a_person),
    "same_noise": lambda: audit(same_noise()),
}
