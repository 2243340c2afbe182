"""Noise of rows that is not what days are charged for is refuted; production's is not, monthly or daily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from tests.trainer_kit import judge
from vault.budget.days import sigma_of
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.proof.certificate import CertificateInvalid
from vault.schema.category import Category
from vault.twin import pieces
from vault.twin.audit_rows import audit_rows
from vault.twin.pieces import Drawn, Piece, draw
from vault.twin.refresh import noise_of

MAPS = {cadence: feature_map(Category("pd:Purchase"), cadence) for cadence in Cadence}
DAILY = MAPS[Cadence.DAILY]
Drawing = Callable[[Mapping[Piece, Integers]], dict[Piece, Drawn]]


@pytest.mark.parametrize("cadence", list(Cadence))
def test_production_is_not_refuted(cadence: Cadence) -> None:
    for _ in range(5):
        judge(rows=audit_rows(MAPS[cadence]))


def with_noise(sample: Callable[..., Integers]) -> Drawing:
    def drawing(exact: Mapping[Piece, Integers]) -> dict[Piece, Drawn]:
        with patch.object(DiscreteGaussian, "sample", sample):
            return draw(exact)

    return drawing


REAL = DiscreteGaussian.sample


def scaled(factor: float) -> Drawing:
    return with_noise(lambda self, shape, *_: np.rint(REAL(self, shape) * factor).astype(np.int64))


def the_same_every_time() -> Drawing:
    drawn: dict[object, Integers] = {}
    return with_noise(lambda self, shape, *_: drawn.setdefault((self.sigma, shape), REAL(self, shape)))


def the_same_each_row(self: DiscreteGaussian, shape: tuple[int, int]) -> Integers:
    return np.tile(REAL(self, (1, shape[1])), (shape[0], 1))


def the_same_for_both(self: DiscreteGaussian, shape: tuple[int, int]) -> Integers:
    half = REAL(self, (shape[0], shape[1] // 2))
    return np.concatenate([half, half], axis=1)


def begun_anew(exact: Mapping[Piece, Integers]) -> dict[Piece, Drawn]:
    """A chain that forgets what it carried on: its days are noisier than said, and its old noise never cancels."""
    with patch.object(pieces, "errors", lambda strategy, noise, known: pieces_errors(strategy, noise, known * 0)):
        return draw(exact)


def one_by_one(exact: Mapping[Piece, Integers]) -> dict[Piece, Drawn]:
    """Each day with the noise that only a whole chain's cancellation pays for: far too little."""
    sigma = next(iter(exact)).sigma
    noise = {piece: REAL(DiscreteGaussian(sigma // 128), values.shape) for piece, values in exact.items()}
    return {piece: Drawn(exact[piece] + z, z) for piece, z in noise.items()}


pieces_errors = pieces.errors

BROKEN: dict[str, tuple[Cadence, Drawing]] = {
    "a third, monthly": (Cadence.MONTHLY, scaled(1 / 3)),
    "a third, daily": (Cadence.DAILY, scaled(1 / 3)),
    "a tenth less, daily": (Cadence.DAILY, scaled(0.9)),
    "none, daily": (Cadence.DAILY, scaled(0.0)),
    "the same every time, monthly": (Cadence.MONTHLY, the_same_every_time()),
    "the same every time, daily": (Cadence.DAILY, the_same_every_time()),
    "the same each row": (Cadence.DAILY, with_noise(the_same_each_row)),
    "the same for both": (Cadence.DAILY, with_noise(the_same_for_both)),
    "begun anew": (Cadence.DAILY, begun_anew),
    "one by one": (Cadence.DAILY, one_by_one),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_rows_are_refuted(name: str) -> None:
    cadence, drawing = BROKEN[name]
    with pytest.raises(CertificateInvalid, match=r"[Rr]ows"):
        judge(rows=audit_rows(MAPS[cadence], drawing))


@pytest.mark.parametrize("cadence", list(Cadence))
def test_the_noise_of_one_share_in_anothers_place_is_refuted(cadence: Cadence) -> None:
    """As where rows of different shares are drawn together: the first's noise for all, too little for the others."""
    with pytest.raises(CertificateInvalid, match="noise is not what"):
        judge(rows=audit_rows(MAPS[cadence], with_noise(of_one_share(cadence))))


def of_one_share(cadence: Cadence) -> Callable[..., Integers]:
    mapped = MAPS[cadence]
    daily = cadence is Cadence.DAILY
    sigma = sigma_of(mapped, 1, late=False) if daily else noise_of(mapped, 1).sigma
    return lambda self, shape, *_: REAL(DiscreteGaussian(sigma), shape)


def test_narrow_maps_are_audited_on_as_many_numbers_as_wide_ones() -> None:
    for cadence in Cadence:
        for category in mapped_for(cadence):
            judge(rows=audit_rows(feature_map(category, cadence)))


class _Unclipped(FeatureMap):
    def day_vector(self, objects: object) -> Integers:
        return super().day_vector(objects) * 2  # type: ignore[arg-type]


@pytest.mark.parametrize("cadence", list(Cadence))
def test_a_day_beyond_the_clip_is_refuted(cadence: Cadence) -> None:
    fields = {name: getattr(MAPS[cadence], name) for name in FeatureMap.__dataclass_fields__}
    with pytest.raises(CertificateInvalid, match="One day"):
        judge(rows=audit_rows(_Unclipped(**fields)))


def test_a_chain_that_shows_more_of_a_day_than_is_charged_is_refuted() -> None:
    found = audit_rows(DAILY)
    with patch("vault.twin.audit_rows.sensitivity", lambda clip: clip * 100), pytest.raises(CertificateInvalid):
        judge(rows=audit_rows(DAILY))
    with pytest.raises(CertificateInvalid, match="One day"):
        judge(rows=replace(found, contribution_ratio=1.01))
