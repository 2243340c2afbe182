"""The backbone: ten numbers and a popularity that say how to read a noisy imprint.

For one person and code k, with g the person's (estimated) intensity and p_k the popularity:

    rows:   x_k = g (p_k + d_k) + noise of known variance + sampling noise in proportion to g p_k
    prior:  d_k = p_k u_department + i_k,  Var u = pooling,  Var i_k = spread p_k (1 - p_k)

The score is the posterior mean of p_k + d_k. A noisy imprint is shrunk towards what most people do,
more so the noisier it is; codes of one public department share strength. Nothing is trained on the
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

_MAGIC: Final = b"TVBACKB1"
_HEADER: Final = struct.Struct("<8s32sI")
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
    """

    map_digest: bytes
    scalars: Floats
    popularity: Floats

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: the model's name everywhere."""
        return hashlib.sha256(dump_backbone(self)).digest()


def dump_backbone(backbone: Backbone) -> bytes:
    """Return the one spelling: magic, map digest, number of codes, then little-endian float32."""
    values = np.concatenate([backbone.scalars, backbone.popularity]).astype("<f4")
    return _HEADER.pack(_MAGIC, backbone.map_digest, len(backbone.popularity)) + values.tobytes()


def parse_backbone(data: bytes) -> Backbone:
    """Read a backbone's bytes.

    Raises:
        BadBackbone: Another length or magic, a value that is not finite, or a popularity outside (0, 1).
    """
    if len(data) < _HEADER.size:
        raise BadBackbone("A backbone is shorter than its header.")
    magic, map_digest, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEADER.size + 4 * (len(START) + count):
        raise BadBackbone("A backbone's magic or length is wrong.")
    values = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
    scalars, popularity = values[: len(START)], values[len(START) :]
    if not np.isfinite(values).all() or not ((popularity > 0) & (popularity < 1)).all():
        raise BadBackbone("A backbone holds a value that no training writes.")
    return Backbone(map_digest, scalars, popularity)


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
    return Backbone(feature_map.digest, scalars, taxonomy(feature_map).prior)


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
    """

    popularity: Tensor
    department: Tensor
    content: int
    active_day: int

    @classmethod
    def of(cls, feature_map: FeatureMap, popularity: Floats, dtype: torch.dtype = torch.float32) -> Reader:
        """Return the reader of a map's rows under a popularity."""
        department = torch.from_numpy(taxonomy(feature_map).department).to(dtype)
        return cls(torch.from_numpy(popularity).to(dtype), department, feature_map.content, feature_map.active_day)

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

        own = spread * p * (1.0 - p)
        surprise = (total - g * p) * (window > 0)
        spread_of_surprise = g**2 * own + noise + sampling * g * p
        evidence = (g * p * surprise / spread_of_surprise) @ self.department
        precision = ((g * p) ** 2 / spread_of_surprise) @ self.department
        shared = (pooling * evidence / (1.0 + pooling * precision)) @ self.department.T * p
        mean = p + shared + g * own * (surprise - g * shared) / spread_of_surprise
        mean = mean.clamp(_LOWEST, _HIGHEST)
        odds = scalars[-2].exp() * (mean.log() - torch.log1p(-mean)) + scalars[-1]
        reliance = (g**2 * own / spread_of_surprise * p).sum(-1, keepdim=True) / p.sum() * (window > 0)
        return odds, reliance
