"""The backbone: ten numbers, a popularity and habits that say how to read a noisy imprint.

For one person and code k, with g the person's (estimated) intensity and p_k the popularity:

    rows:   x_k = g (p_k + d_k) + noise of known variance + sampling noise in proportion to g p_k
    prior:  d_k = p_k u_department + i_k,  Var u = pooling,  Var i_k = spread p_k (1 - p_k)
    or, of a backbone with habits, d = sum over r of a_r h_r,  Var h_r = variance_r

The score is the posterior mean of p_k + d_k. A noisy imprint is shrunk towards what most people do,
more so the noisier it is; codes of one public department share strength, or those that a cohort has been seen to
buy together. Along the axes of habits noise is independent, and days' own accidents are taken to be. Rows that were made
through the backbone's lens lie along the same axes: what they say is added to what other rows do. Nothing is trained on
the person who asks.

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
from vault.imprint.lens import Lens, through, unit_of
from vault.proof.certificate import Manifest

Floats = npt.NDArray[np.float32]

MAX_MONTHS: Final = 24
POPULARITY_FLOOR: Final = 1e-3

_PLAIN: Final = b"TVBACKB2"
_WITH_LENS: Final = b"TVBACKB3"
_HEADER: Final = struct.Struct("<8s32sII")
_WEIGHTS: Final = struct.Struct("<I")
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
        lens: Along the first of its axes, of a backbone that reads days that were seen through it.
    """

    map_digest: bytes
    scalars: Floats
    popularity: Floats
    axes: Floats
    variance: Floats
    lens: Lens | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: the model's name everywhere."""
        return hashlib.sha256(dump_backbone(self)).digest()


def dump_backbone(backbone: Backbone) -> bytes:
    """Return the one spelling: magic, map digest, numbers of codes and axes, then little-endian float32.

    With a lens, the number of its directions follows the header, and its weights, length and centre end the values.
    """
    values = [backbone.scalars, backbone.popularity, backbone.variance, backbone.axes.ravel()]
    magic, weights = _PLAIN, b""
    if (lens := backbone.lens) is not None:
        magic, weights = _WITH_LENS, _WEIGHTS.pack(len(lens.weights))
        values += [lens.weights, np.array([lens.length]), lens.centre]
    header = _HEADER.pack(magic, backbone.map_digest, len(backbone.popularity), len(backbone.variance)) + weights
    return header + np.concatenate(values).astype("<f4").tobytes()


def parse_backbone(data: bytes) -> Backbone:
    """Read a backbone's bytes.

    Raises:
        BadBackbone: Another length or magic, a value that is not finite, a popularity outside (0, 1), a
            variance that is negative, or a lens that no backbone makes.
    """
    if len(data) < _HEADER.size + _WEIGHTS.size:
        raise BadBackbone("A backbone is shorter than its header.")
    magic, map_digest, count, axes = _HEADER.unpack_from(data)
    at, sizes = _HEADER.size, [len(START), count, axes, axes * count]
    if magic == _WITH_LENS:
        (weights,) = _WEIGHTS.unpack_from(data, at)
        at, sizes = at + _WEIGHTS.size, [*sizes, weights, 1, count]
        if not 1 <= weights <= axes:
            raise BadBackbone("A backbone's lens has directions that are none of its axes.")
    if magic not in {_PLAIN, _WITH_LENS} or len(data) != at + 4 * sum(sizes):
        raise BadBackbone("A backbone's magic or length is wrong.")
    values = np.frombuffer(data, dtype="<f4", offset=at).astype(np.float32)
    scalars, popularity, variance, directions, *of_lens = np.split(values, np.cumsum(sizes)[:-1])
    if not np.isfinite(values).all() or not ((popularity > 0) & (popularity < 1)).all() or (variance < 0).any():
        raise BadBackbone("A backbone holds a value that no training writes.")
    directions = directions.reshape(axes, count)
    return Backbone(map_digest, scalars, popularity, directions, variance, _lens(directions, *of_lens))


def _lens(
    axes: Floats, weights: Floats | None = None, length: Floats | None = None, centre: Floats | None = None
) -> Lens | None:
    if weights is None or length is None or centre is None:
        return None
    if not ((weights > 0) & (weights <= 1)).all() or length[0] <= 0 or (centre < 0).any():
        raise BadBackbone("A backbone holds a lens that no training writes.")
    return Lens(centre, axes[: len(weights)], weights, float(length[0]))


def maps_of(feature_map: FeatureMap, backbone: Backbone) -> tuple[FeatureMap, ...]:
    """Return the maps whose rows a backbone of a map reads: that map, and with a lens the map of days seen through it."""
    return (feature_map,) if backbone.lens is None else (feature_map, _through(feature_map, backbone.lens))


_through = lru_cache(maxsize=32)(through)


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
        unit: [R] what one part of a day along each axis adds to a row that was made through the lens, in quantised
            units; 0 along those that it does not show.
        usual: [K - 1] what the lens takes for a day's popularity; equal to `popularity` where the backbone made it.
    """

    popularity: Tensor
    department: Tensor
    content: int
    active_day: int
    axes: Tensor
    variance: Tensor
    unit: Tensor
    usual: Tensor

    @classmethod
    def of(cls, feature_map: FeatureMap, backbone: Backbone, dtype: torch.dtype = torch.float32) -> Reader:
        """Return the reader of a map's rows under a backbone, its ten numbers left open."""
        unit, usual = np.zeros_like(backbone.variance), backbone.popularity
        if (lens := backbone.lens) is not None:
            unit[: len(lens.weights)], usual = unit_of(lens, feature_map.clip), lens.usual

        def tensor(values: Floats) -> Tensor:
            return torch.from_numpy(values).to(dtype)

        return cls(
            popularity=tensor(backbone.popularity),
            department=tensor(taxonomy(feature_map).department),
            content=feature_map.content,
            active_day=feature_map.active_day,
            axes=tensor(backbone.axes),
            variance=tensor(backbone.variance),
            unit=tensor(unit),
            usual=tensor(usual),
        )

    def log_odds(
        self, scalars: Tensor, seen: Months, asked: Tensor, projected: Months | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read rows.

        Args:
            scalars: [10] in the order of `START`.
            seen: The rows; only those of months before the asked one are read, older ones count less.
            asked: [..., E] month numbers asked about.
            projected: Rows that were made through the lens.

        Returns:
            Log-odds [..., E, K - 1] that a code occurs on the next day with a trace, and [..., E, 1] in
            [0, 1) how far the rows, rather than the prior, decided them.
        """
        decay, spread, pooling, *_ = scalars[:-2].exp()
        total, variance, window = _added(decay, seen, asked)
        total, days = total[..., :-1] / self.content, total[..., -1:] / self.active_day
        noise, p = variance / self.content**2, self.popularity
        # What the codes say of the intensity, beside the active days.
        energy = (p * p).sum()
        g = self._intensity(scalars, window, variance, days, ((total @ p).unsqueeze(-1) / energy, noise / energy))
        seen_of = _Surprise((total - g * p) * (window > 0), g, noise, window > 0)
        if len(self.variance):
            change, reliance = self._by_habits(scalars, seen_of, self._projected(scalars, decay, projected, asked))
        else:
            change, reliance = self._by_departments(scalars, seen_of, spread, pooling)
        mean = (p + change).clamp(_LOWEST, _HIGHEST)
        odds = scalars[-2].exp() * (mean.log() - torch.log1p(-mean)) + scalars[-1]
        return odds, reliance

    def _intensity(
        self, scalars: Tensor, window: Tensor, variance: Tensor, days: Tensor, codes: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Return g: independent guesses, weighed by their precision: prior, active days and, of rows of codes, those.

        Args:
            scalars: As in `log_odds`.
            window: [..., E, 1] how many months the rows are worth.
            variance: [..., E, 1] of the noise in them.
            days: [..., E, 1] active days.
            codes: A guess by them, and the variance of its noise.
        """
        _, _, _, intensity, intensity_spread, per_day, _, mismatch = scalars[:-2].exp()
        doubt = (mismatch * intensity * window) ** 2
        prior_precision = 1.0 / (intensity_spread * window + 1e-3) ** 2
        day_precision = 1.0 / (variance * (per_day / self.active_day) ** 2 + doubt)
        g = intensity * window * prior_precision + per_day * days * day_precision
        precision = prior_precision + day_precision
        if codes is not None:
            guess, noise = codes
            code_precision = 1.0 / (noise + doubt)
            g, precision = g + guess * code_precision, precision + code_precision
        return torch.nn.functional.softplus(4.0 * g / precision) / 4.0  # an intensity is never negative

    def _by_departments(
        self, scalars: Tensor, seen: _Surprise, spread: Tensor, pooling: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the posterior mean of d, and how far rows decided it, if people differ as departments say."""
        p, g = self.popularity, seen.intensity
        own = spread * p * (1.0 - p)
        deviation = g**2 * own + seen.noise + _sampling(scalars) * g * p
        evidence = (g * p * seen.values / deviation) @ self.department
        precision = ((g * p) ** 2 / deviation) @ self.department
        shared = (pooling * evidence / (1.0 + pooling * precision)) @ self.department.T * p
        reliance = (g**2 * own / deviation * p).sum(-1, keepdim=True) / p.sum()
        return shared + g * own * (seen.values - g * shared) / deviation, reliance * seen.any

    def _by_habits(self, scalars: Tensor, seen: _Surprise, projected: _Surprise | None) -> tuple[Tensor, Tensor]:
        """Return the same if people differ as the cohort's habits say."""
        evidence, precision = self._evidence(scalars, seen, seen.values @ self.axes.T, torch.ones_like(self.variance))
        if projected is not None:
            both = self._evidence(scalars, projected, projected.values, self.unit)
            evidence, precision = evidence + both[0], precision + both[1]
        habits = self.variance * evidence / (1.0 + self.variance * precision)
        decided = self.variance * precision / (1.0 + self.variance * precision)
        return habits @ self.axes, (decided * self.variance).sum(-1, keepdim=True) / self.variance.sum()

    def _evidence(self, scalars: Tensor, seen: _Surprise, values: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Return [..., E, R] what rows say of habits along each axis, times its precision, and that precision."""
        g = seen.intensity
        accident = (self.axes**2 @ self.popularity) * unit**2
        noise = seen.noise + _sampling(scalars) * g * accident
        return g * unit * values / noise * seen.any, (g * unit) ** 2 / noise * seen.any

    def _projected(self, scalars: Tensor, decay: Tensor, rows: Months | None, asked: Tensor) -> _Surprise | None:
        """Return what rows that were made through the lens show beyond what is popular, along each axis."""
        if rows is None:
            return None
        total, variance, window = _added(decay, rows, asked)
        days, shown = total[..., -1:] / self.active_day, total[..., :-1]
        g = self._intensity(scalars, window, variance, days, None)
        # The lens took out what was usual when it was made; since then it may be something else.
        since = (self.axes @ (self.usual - self.popularity)) * self.unit
        values = torch.nn.functional.pad(shown, (0, len(self.unit) - shown.shape[-1])) + g * since
        return _Surprise(values * (window > 0), g, variance, window > 0)


def _sampling(scalars: Tensor) -> Tensor:
    return scalars[list(START).index("sampling")].exp()


def _added(decay: Tensor, seen: Months, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return [..., E, K] rows of the months before the asked ones added up, [..., E, 1] the noise in them and their worth."""
    age = asked.unsqueeze(-1) - seen.month.unsqueeze(-2) - 1
    weights = torch.exp(-decay * age.clamp(min=0)) * (age >= 0) * seen.present.unsqueeze(-2)
    variance = (weights**2 @ (seen.sigma**2).unsqueeze(-1)).clamp(min=_NO_NOISE)
    return weights @ seen.rows, variance, weights.sum(-1, keepdim=True)


class _Surprise(NamedTuple):
    """What rows show beyond what is popular.

    Args:
        values: [..., E, K - 1], or along each axis [..., E, R].
        intensity: [..., E, 1] g.
        noise: [..., E, 1] variance of the rows' noise in each of them.
        any: [..., E, 1] whether there is a row.
    """

    values: Tensor
    intensity: Tensor
    noise: Tensor
    any: Tensor
