"""The backbone: ten numbers, a popularity and habits that say how to read a noisy imprint.

For one person and code k, with g the person's (estimated) intensity and p_k the popularity:

    rows:   x_k = g (p_k + d_k) + noise of known variance + sampling noise in proportion to g p_k
    prior:  d_k = p_k u_department + i_k,  Var u = pooling,  Var i_k = spread p_k (1 - p_k)
    or, of a backbone with habits, d = sum over r of a_r h_r,  Var h_r = variance_r

The score is the posterior mean of p_k + d_k. A noisy imprint is shrunk towards what most people do,
more so the noisier it is; codes of one public department share strength, or those that a cohort has been seen to
buy together. Along the axes of habits noise is independent, and days' own accidents are taken to be. Nothing is trained on the
person who asks.

Source: Lindley, Smith, "Bayes Estimates for the Linear Model" (1972), for a diagonal plus one
direction per group; popularity prior as measured in the project's own study.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vault.encoding import parse_json
from vault.errors import VaultError
from vault.imprint.features import FeatureMap
from vault.proof.certificate import Manifest

Floats = npt.NDArray[np.float32]

MAX_MONTHS: Final = 24
POPULARITY_FLOOR: Final = 1e-3

_MAGIC: Final = b"TVBACKB2"
_HEADER: Final = struct.Struct("<8s32sII")
_LOWEST: Final = 1e-4
_HIGHEST: Final = 0.95
_NO_NOISE: Final = 1e-6  # without any row there is nothing to divide by

# What the ten numbers mean, and where training starts: conventions set by hand, learned from nobody. What
# a cohort's people say about them is learned by training alone, and charged.
START: Final = {
    "decay": math.log(math.log(2.0) / 12.0),  # an older month counts less, half as much after a year
    "spread": math.log(0.12),  # how much people differ in one code
    "pooling": math.log(0.4),  # how much they differ in a whole department
    "intensity": math.log(1.6),  # a month's intensity before any row is seen
    "intensity_spread": math.log(1.6),  # how much people differ in it: as much as it is, as if exponential
    "per_day": math.log(0.45),  # intensity of one active day
    "sampling": math.log(0.3),  # sampling noise of a month's days
    "mismatch": math.log(0.1),  # doubt about the intensity that rows show, relative to its prior
    "temperature": 0.0,  # logarithm of the factor on the score's log-odds
    "offset": 0.0,  # added to them
}


class BadBackbone(VaultError):
    """Bytes that are not a backbone, or not one for the feature map in use."""

    slug = "bad-backbone"
    title = "Backbone is not usable"
    status = 500


@dataclass(frozen=True, eq=False)
class Backbone:
    """The released cohort model.

    Args:
        map_digest: Digest of the feature map whose rows it reads, 32 bytes.
        scalars: float32[10] in the order of `START`.
        popularity: float32[K - 1]: how probable each code is on a day with a trace.
        axes: float32[R, K - 1]: orthonormal directions in which people's habits differ independently; with none,
            people differ as the public departments say.
        variance: float32[R]: of their differences along each.
    """

    map_digest: bytes
    scalars: Floats
    popularity: Floats
    axes: Floats
    variance: Floats

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: the model's name everywhere."""
        return hashlib.sha256(dump_backbone(self)).digest()


def dump_backbone(backbone: Backbone) -> bytes:
    """Return the one spelling: magic, map digest, numbers of codes and axes, then little-endian float32."""
    values = [backbone.scalars, backbone.popularity, backbone.variance, backbone.axes.ravel()]
    header = _HEADER.pack(_MAGIC, backbone.map_digest, len(backbone.popularity), len(backbone.variance))
    return header + np.concatenate(values).astype("<f4").tobytes()


def parse_backbone(data: bytes) -> Backbone:
    """Read a backbone's bytes.

    Raises:
        BadBackbone: Another length or magic, a value that is not finite, a popularity outside (0, 1) or a
            variance that is negative.
    """
    if len(data) < _HEADER.size:
        raise BadBackbone("A backbone is shorter than its header.")
    magic, map_digest, count, axes = _HEADER.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEADER.size + 4 * (len(START) + count + axes * (1 + count)):
        raise BadBackbone("A backbone's magic or length is wrong.")
    values = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
    scalars, popularity, variance, directions = np.split(values, np.cumsum([len(START), count, axes]))
    if not np.isfinite(values).all() or not ((popularity > 0) & (popularity < 1)).all() or (variance < 0).any():
        raise BadBackbone("A backbone holds a value that no training writes.")
    return Backbone(map_digest, scalars, popularity, directions.reshape(axes, count), variance)


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """The public hierarchy over a feature map's codes.

    Args:
        department: float32[K - 1, departments], one-hot; the map's `other` has a department of its own.
        prior: float32[K - 1]: popularity guessed from public facts alone.
    """

    department: Floats
    prior: Floats


@lru_cache
def taxonomy(feature_map: FeatureMap) -> Taxonomy:
    """Return the published departments of a map's codes, and a popularity from the width of each range.

    Shops stock more kinds of what sells: the prior is proportional to the square root of the number
    of products, eight codes to a day. No transaction was read.
    """
    file = resources.files("vault.twin") / "data" / f"{feature_map.hierarchy}.json"
    departments = cast("dict[str, dict[str, int]]", parse_json(file.read_bytes())["departments"])
    rank = {code: (at, products) for at, group in enumerate(departments.values()) for code, products in group.items()}
    rows = [rank.get(code, (len(departments), 1)) for code in feature_map.codes[:-1]]
    width = np.sqrt(np.array([products for _, products in rows], dtype=np.float64))
    prior = np.clip(8.0 * width / width.sum(), POPULARITY_FLOOR, 0.3)
    one_hot = np.eye(len(departments) + 1, dtype=np.float32)[[at for at, _ in rows]]
    return Taxonomy(one_hot, prior.astype(np.float32))


def closed_form(feature_map: FeatureMap) -> Backbone:
    """Return the reader for a server without a cohort: public constants, learned from nobody."""
    scalars = np.array(list(START.values()), dtype=np.float32)
    prior = taxonomy(feature_map).prior
    none = np.zeros((0, len(prior)), dtype=np.float32)
    return Backbone(feature_map.digest, scalars, prior, none, none[:, 0])


def closed_form_manifest(feature_map: FeatureMap) -> Manifest:
    """Return the manifest of the closed-form reader: epsilon 0, no charge, no certificate.

    `verify_certificate` accepts it where the caller names `closed_form(feature_map).digest` as built in.
    """
    code = hashlib.sha256(Path(__file__).read_bytes()).digest()
    return Manifest(closed_form(feature_map).digest, feature_map.digest, code, 0, 0, 0, 1_000_000, (), None)


class Months(NamedTuple):
    """Imprint rows as tensors; for one person, or with leading dimensions for several.

    Args:
        rows: [..., M, K] in quantised units.
        sigma: [..., M] noise of each row, in quantised units.
        month: [..., M] month numbers.
        present: [..., M] how many months a row is worth: 1 for a month's own, 0 for padding, more for a level
            that averages more days (`vault.twin.levels`).
    """

    rows: Tensor
    sigma: Tensor
    month: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class Reader:
    """The formula at the head of this module, with everything but the ten numbers filled in.

    Args:
        popularity: [K - 1].
        department: [K - 1, departments], one-hot.
        content: What the only code of a day adds to its coordinate, in quantised units.
        active_day: What a day with a trace adds to the last coordinate.
        axes: [R, K - 1] of habits; none of a backbone without.
        variance: [R].
    """

    popularity: Tensor
    department: Tensor
    content: int
    active_day: int
    axes: Tensor
    variance: Tensor

    @classmethod
    def of(cls, feature_map: FeatureMap, backbone: Backbone, dtype: torch.dtype = torch.float32) -> Reader:
        """Return the reader of a map's rows under a backbone, its ten numbers left open."""
        public = taxonomy(feature_map).department
        department, popularity, axes, variance = (
            torch.from_numpy(one).to(dtype) for one in (public, backbone.popularity, backbone.axes, backbone.variance)
        )
        return cls(popularity, department, feature_map.content, feature_map.active_day, axes, variance)

    def log_odds(self, scalars: Tensor, seen: Months, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Read rows.

        Args:
            scalars: [10] in the order of `START`.
            seen: The rows; only those of months before the asked one are read, older ones count less.
            asked: [..., E] month numbers asked about.

        Returns:
            Log-odds [..., E, K - 1] that a code occurs on the next day with a trace, and [..., E, 1] in
            [0, 1) how far the rows, rather than the prior, decided them.
        """
        decay, spread, pooling, intensity, intensity_spread, per_day, sampling, mismatch = scalars[:-2].exp()
        age = asked.unsqueeze(-1) - seen.month.unsqueeze(-2) - 1
        weights = torch.exp(-decay * age.clamp(min=0)) * (age >= 0) * seen.present.unsqueeze(-2)
        total = weights @ seen.rows
        variance = (weights**2 @ (seen.sigma**2).unsqueeze(-1)).clamp(min=_NO_NOISE)
        total, active_days = total[..., :-1] / self.content, total[..., -1:] / self.active_day
        noise, p, window = variance / self.content**2, self.popularity, weights.sum(-1, keepdim=True)

        # Three independent guesses of the intensity, weighed by their precision: prior, codes, active days.
        doubt, energy = (mismatch * intensity * window) ** 2, (p * p).sum()
        prior_precision = 1.0 / (intensity_spread * window + 1e-3) ** 2
        code_precision = 1.0 / (noise / energy + doubt)
        day_precision = 1.0 / (variance * (per_day / self.active_day) ** 2 + doubt)
        g = intensity * window * prior_precision + (total @ p).unsqueeze(-1) / energy * code_precision
        g = (g + per_day * active_days * day_precision) / (prior_precision + code_precision + day_precision)
        g = torch.nn.functional.softplus(4.0 * g) / 4.0  # an intensity is never negative

        seen_of = _Surprise((total - g * p) * (window > 0), g, noise, sampling)
        if len(self.variance):
            change, reliance = self._by_habits(seen_of)
        else:
            change, reliance = self._by_departments(seen_of, spread, pooling)
        mean = (p + change).clamp(_LOWEST, _HIGHEST)
        odds = scalars[-2].exp() * (mean.log() - torch.log1p(-mean)) + scalars[-1]
        return odds, reliance * (window > 0)

    def _by_departments(self, seen: _Surprise, spread: Tensor, pooling: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior mean of d, and how far rows decided it, if people differ as departments say."""
        p, g = self.popularity, seen.intensity
        own = spread * p * (1.0 - p)
        deviation = g**2 * own + seen.noise + seen.sampling * g * p
        evidence = (g * p * seen.values / deviation) @ self.department
        precision = ((g * p) ** 2 / deviation) @ self.department
        shared = (pooling * evidence / (1.0 + pooling * precision)) @ self.department.T * p
        reliance = (g**2 * own / deviation * p).sum(-1, keepdim=True) / p.sum()
        return shared + g * own * (seen.values - g * shared) / deviation, reliance

    def _by_habits(self, seen: _Surprise) -> tuple[Tensor, Tensor]:
        """Return the same if people differ as the cohort's habits say."""
        g, accident = seen.intensity, self.axes**2 @ self.popularity
        gain = g * self.variance / (g**2 * self.variance + seen.noise + seen.sampling * g * accident)
        reliance = (g * gain * self.variance).sum(-1, keepdim=True) / self.variance.sum()
        return (seen.values @ self.axes.T * gain) @ self.axes, reliance


class _Surprise(NamedTuple):
    """What rows show beyond what is popular.

    Args:
        values: [..., E, K - 1].
        intensity: [..., E, 1] g.
        noise: [..., E, 1] variance of the rows' noise in each of them.
        sampling: Sampling noise in proportion to g p.
    """

    values: Tensor
    intensity: Tensor
    noise: Tensor
    sampling: Tensor
