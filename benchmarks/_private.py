"""What the quality figures of networks share: noise for an epsilon, a decaying optimizer, paired intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from opacus.accountants.utils import get_noise_multiplier
from torch import nn

from vault.proof.charge import epsilon_of
from vault.twin.train import Descent

Floats = npt.NDArray[np.float64]
EPSILONS: Final = (0.5, 1.0, 3.0, 8.0)
NEIGHBOURS: Final = "one person added or removed"

_DRAWS: Final = 1_000


def only_file(folder: Path, pattern: str) -> Path:
    """Return the one file of that pattern in a folder.

    Raises:
        SystemExit: There is none, or more than one.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder} must hold exactly one {pattern}; it holds {len(found)}.")
    return found[0]


def descent_for(epsilon: float, delta: float, sample_rate: float, steps: int, clip: float) -> Descent:
    """Return the descent whose whole cost a person is (epsilon, delta), by the service's accountant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        noise = get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=delta,
            sample_rate=sample_rate,
            steps=steps,
            accountant="rdp",
            epsilon_tolerance=epsilon / 500,
        )
    while True:
        descent = Descent(noise, sample_rate, steps, clip=clip)
        if epsilon_of([descent.charge()], delta) <= epsilon:
            return descent
        noise *= 1.002


def decaying(model: nn.Module, learning_rate: float, steps: int) -> torch.optim.Optimizer:
    """Return Adam, with a learning rate that falls in a line to zero; what follows noise costs no privacy."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1.0 - step / steps, 0.0))
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def charged(descent: Descent, epsilon: float, delta: float) -> dict[str, float | str]:
    """Return the line of `charges` for a descent."""
    return {
        "release": f"training at epsilon {epsilon:g}",
        "noise_multiplier": round(descent.noise_multiplier, 4),
        "sample_rate": descent.sample_rate,
        "steps": descent.steps,
        "clip": descent.clip,
        "epsilon": round(epsilon_of([descent.charge()], delta), 4),
        "delta": delta,
    }


def interval(sums: Floats, weights: Floats) -> tuple[float, float]:
    """Return the 95 % bootstrap interval over people of sum(sums) / sum(weights).

    Args:
        sums: [people].
        weights: [people], such as how many pages each saw.
    """
    # Poisson bootstrap: each person as often as a Poisson coin says; people are many.
    generator = np.random.default_rng(95)
    draws = []
    for _ in range(_DRAWS):
        often = generator.poisson(1.0, len(sums)).astype(np.float64)
        draws.append(float(often @ sums / (often @ weights)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Return values with five digits after the point."""
    return {name: round(value, 5) for name, value in values.items()}
