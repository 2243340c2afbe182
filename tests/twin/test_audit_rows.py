"""Noise of rows that is not what days are charged for is refuted; production's is not, monthly or daily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from tests.trainer_kit import CLEAN, judge
from tests.twin.lens_kit import lens_of, with_habits
from vault.budget.days import sigma_of
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.lens import Lens
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.projection import Projection
from vault.proof.certificate import CertificateInvalid
from vault.schema.category import Category
from vault.twin import pieces
from vault.twin.audit_rows import audit_all_rows, audit_rows
from vault.twin.certify import measure
from vault.twin.pieces import Drawn, Piece, draw
from vault.twin.reader import maps_of
from vault.twin.refresh import noise_of
from vault.twin.train import PersonMonths

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


LENSED = maps_of(DAILY, with_habits(directions=80))


def for_lens_rows_alone(drawing: Drawing) -> Drawing:
    """Draw plain rows as production does, and rows through a lens otherwise."""
    plain, through = (one.digest for one in LENSED)

    def either(exact: Mapping[Piece, Integers]) -> dict[Piece, Drawn]:
        (digest,) = {piece.mapped.digest for piece in exact}
        assert digest in {plain, through}
        return draw(exact) if digest == plain else drawing(exact)

    return either


def test_rows_through_a_lens_are_not_refuted_either() -> None:
    for _ in range(3):
        judge(rows=audit_all_rows(LENSED))


LENSED_BROKEN = {name: drawing for name, (cadence, drawing) in BROKEN.items() if cadence is Cadence.DAILY}


@pytest.mark.parametrize("name", list(LENSED_BROKEN))
def test_noise_that_is_broken_in_rows_through_a_lens_alone_is_refuted(name: str) -> None:
    with pytest.raises(CertificateInvalid, match=r"[Rr]ows"):
        judge(rows=audit_all_rows(LENSED, for_lens_rows_alone(LENSED_BROKEN[name])))


def three_people_apart(self: DiscreteGaussian, shape: tuple[int, int]) -> Integers:
    noise = REAL(self, shape)
    size = LENSED[1].size
    if not shape[1] % (8 * size):  # eight people of each share
        people = noise.reshape(shape[0], -1, size)
        people[:, 3::8] = people[:, ::8]
    return noise


def test_noise_that_one_person_shares_with_another_however_far_apart_is_refuted() -> None:
    with pytest.raises(CertificateInvalid, match="Rows repeat"):
        judge(rows=audit_all_rows(LENSED, for_lens_rows_alone(with_noise(three_people_apart))))


class _Doubled(Projection):
    def day_vectors(self, present: object) -> Integers:
        return super().day_vectors(present) * 2  # type: ignore[arg-type]


class _NeverShortened(Projection):
    def day_vectors(self, present: object) -> Integers:
        occurred = np.asarray(present) > 0
        unit = occurred / np.sqrt(np.maximum(occurred.sum(1), 1))[:, None]
        whole = np.rint((unit - self.centre) @ self.directions.T * self.scale).astype(np.int64)
        return np.concatenate([whole, np.full((len(whole), 1), self.active_day)], axis=1)


@pytest.mark.parametrize("broken", [_Doubled, _NeverShortened])
def test_a_projection_beyond_the_clip_is_refuted(broken: type[Projection]) -> None:
    plain, through = LENSED
    right = through.projection
    assert right is not None
    wrong = replace(through, projection=broken(right.centre, right.directions, right.length, right.clip))
    with pytest.raises(CertificateInvalid, match="One day"):
        judge(rows=audit_all_rows((plain, wrong)))
    # What is furthest from what is usual is a code alone; a day of the most usual ones may be short.
    alone = max(float(np.linalg.norm(wrong.day_vector([code]))) for code in wrong.objects)
    assert audit_rows(wrong).contribution_ratio >= alone / wrong.clip * 0.99


class _Wide(Lens):
    def projection(self, clip: int) -> Projection:
        right = super().projection(clip)
        return _Doubled(right.centre, right.directions, right.length, right.clip)


def test_a_models_certificate_says_how_rows_through_its_own_lens_are_made() -> None:
    model, size = with_habits(), DAILY.size
    lens = lens_of(model)
    wide = replace(model, lens=_Wide(lens.centre, lens.axes, lens.weights, lens.length))
    nobody = np.zeros((1, size), dtype=np.int64)
    one = np.ones(1, dtype=np.int64)
    records = PersonMonths(one, one * 24_000, nobody, one, nobody[:, :-1], nobody, one, worth=np.zeros(1))
    found = [measure(made, records, DAILY, CLEAN)[0].rows_contribution_ratio_ppm for made in (model, wide)]
    assert found[0] <= 1_000_000 < found[1]


def test_a_chain_that_shows_more_of_a_day_than_is_charged_is_refuted() -> None:
    found = audit_rows(DAILY)
    with patch("vault.twin.audit_rows.sensitivity", lambda clip: clip * 100), pytest.raises(CertificateInvalid):
        judge(rows=audit_rows(DAILY))
    with pytest.raises(CertificateInvalid, match="One day"):
        judge(rows=replace(found, contribution_ratio=1.01))
