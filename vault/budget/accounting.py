"""How much noise keeps releases under a cap."""

from __future__ import annotations

from bisect import bisect_left

from vault.imprint.noise import MAX_SIGMA
from vault.proof.accounting import Cap, gaussian


def sigma_for(epsilon: float, delta: float, sensitivity: int, releases: int = 1) -> int:
    """Return the least noise with which the releases together stay under a cap.

    Args:
        epsilon: The cap's epsilon, over 0, at most 20.
        delta: The cap's delta.
        sensitivity: L2 sensitivity of each release, in quantised units.
        releases: Releases about the same unit, such as the categories that cover one day.

    Returns:
        sigma in quantised units, rounded up to a whole one.

    Raises:
        ValueError: No noise that can be drawn is enough.

    Guarantees: the releases together cost what continuous Gaussian noise of all but the same variance costs, which is
    known exactly: see `vault.proof.accounting.gaussian`. Renyi's bound would ask for 6 % more noise.
    """
    cap = Cap(epsilon, delta)
    scales = range(1, MAX_SIGMA + 1)
    at = bisect_left(scales, True, key=lambda sigma: cap.admits(gaussian(sensitivity, sigma, releases)))
    if at == len(scales):
        raise ValueError(f"{releases} releases under epsilon {epsilon:g} need more noise than can be drawn")
    return scales[at]
