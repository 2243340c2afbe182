"""The audit of rows: is the noise of what vaults release the noise that their days were charged for?

It has production make the rows of people who left no trace, and of one whose every day is as long as a day can
be, takes out what the published strategy says that noise adds up to, and looks at what is left: independent noise of
the charged scale, no longer than a chain is. It makes the rows of every share of a day's cap that a consent can lead to, and all
in one draw, as a refresh of many vaults does. No vault is opened for it; like every audit it can only refute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypeAlias, assert_never

import numpy as np
import numpy.typing as npt

from vault.budget.charge import owner_day
from vault.budget.days import Days, sigma_of
from vault.budget.ledger import Reservation, State
from vault.imprint.block import DAILY, sensitivity, strategy_from
from vault.imprint.features import Cadence, FeatureMap, mapped_for
from vault.imprint.noise import Integers
from vault.imprint.rows import MONTHLY
from vault.schema.trace import Period, period_of
from vault.twin.months import Month
from vault.twin.opening import Ask, Made, Wanted
from vault.twin.pieces import Drawn, Piece, Run, draw
from vault.twin.refresh import noise_of

Drawing: TypeAlias = Callable[[Mapping[Piece, Integers]], dict[Piece, Drawn]]
Floats: TypeAlias = npt.NDArray[np.float64]

_ROWS: Final = 120
_MONTH: Final = Period("2025-01")
_START: Final = date(2025, 1, 1)
_FIRST: Final = 90
"""How many of the `_ROWS` days of a chain one refresh makes; the next one goes on."""
_WIDTH: Final = 600
"""How many numbers a row of all people of a share together has at least: a narrow map is audited on more people."""


@dataclass(frozen=True, slots=True)
class RowsAudit:
    """What the audit found.

    Args:
        noise_ratio: Measured over charged noise, of the part of the rows where it is furthest from 1.
        noise_repeats: Largest correlation between the noises of two people, two rows or two releases.
        contribution_ratio: Most that one day moves all rows of a release together, over what it is charged for.
    """

    noise_ratio: float
    noise_repeats: float
    contribution_ratio: float


def audit_rows(feature_map: FeatureMap, drawing: Drawing = draw) -> RowsAudit:
    """Audit how rows are made under a map.

    Args:
        feature_map: The map.
        drawing: What adds the noise; production's unless a test breaks it.

    Returns:
        The findings; `verify_certificate` judges them. Of a right one, ratio and correlation are 10 standard
        deviations away from what is refused.
    """
    match feature_map.cadence:
        case Cadence.MONTHLY:
            make, column, charged = _monthly, 1.0, feature_map.clip
        case Cadence.DAILY:
            make, charged = _daily, sensitivity(feature_map.clip)
            column = strategy_from(_START).column_square ** 0.5
        case _ as other:
            assert_never(other)
    releases = [make(feature_map, drawing) for _ in range(2)]
    shares = [rows for release in releases for rows in release]
    ratios = [float(rows[part].std()) for rows in shares for part in (slice(_FIRST), slice(_FIRST, None))]
    pairs = [
        *zip(*releases, strict=True),
        *((rows, np.roll(rows, apart, axis=1)) for rows in shares for apart in range(1, rows.shape[1] // 2 + 1)),
        *((rows[:-lag], rows[lag:]) for rows in shares for lag in (1, 2)),
    ]
    # Of a plain map the most codes make the longest day; of a lens it is often one code that few have.
    codes = feature_map.codes[:-2]
    days = [*(codes[:count] for count in range(1, len(codes) + 1)), *((code,) for code in codes)]
    longest = max(float(np.linalg.norm(feature_map.day_vector(day))) for day in days)
    return RowsAudit(
        noise_ratio=max(ratios, key=lambda ratio: abs(ratio - 1)),
        noise_repeats=max((_correlation(one, two) for one, two in pairs), key=abs),
        contribution_ratio=longest * column / charged,
    )


def audit_all_rows(feature_maps: Iterable[FeatureMap], drawing: Drawing = draw) -> RowsAudit:
    """Audit the rows of several maps, such as one and what a lens makes of it: each finding is the worst one."""
    found = [audit_rows(mapped, drawing) for mapped in feature_maps]
    return RowsAudit(
        noise_ratio=max((one.noise_ratio for one in found), key=lambda ratio: abs(ratio - 1)),
        noise_repeats=max((one.noise_repeats for one in found), key=abs),
        contribution_ratio=max(one.contribution_ratio for one in found),
    )


def _correlation(one: Floats, two: Floats) -> float:
    return float(np.corrcoef(one.ravel(), two.ravel())[0, 1]) if one.any() and two.any() else 1.0


def _shares(mapped: FeatureMap) -> range:
    """Return for how many categories a consent can have rows made."""
    return range(1, len(mapped_for(mapped.cadence)) + 1)


def _people(mapped: FeatureMap) -> int:
    return 2 * -(-_WIDTH // (2 * mapped.size))


def _monthly(mapped: FeatureMap, drawing: Drawing) -> list[Floats]:
    """Return for each share [rows, people, K] noise of people's months, in units of the charged one."""
    sigmas, ask = [noise_of(mapped, count).sigma for count in _shares(mapped)], Ask(Wanted.SUM, mapped, _MONTH)
    pieces = {sigma: [_piece(mapped, MONTHLY, sigma, ask) for _ in range(_people(mapped) * _ROWS)] for sigma in sigmas}
    drawn = drawing({piece: np.zeros(mapped.size, dtype=np.int64) for made in pieces.values() for piece in made})
    return [
        np.stack([drawn[piece].values for piece in made]).reshape(_ROWS, _people(mapped), mapped.size) / sigma
        for sigma, made in pieces.items()
    ]


def _daily(mapped: FeatureMap, drawing: Drawing) -> list[Floats]:
    """Return for each share [days, people, K] noise of people's chains as it was before it was carried on.

    In units of the charged one.
    """
    sigmas = [sigma_of(mapped, count, late=False) for count in _shares(mapped)]
    known = [(sigma, np.zeros((0, mapped.size), dtype=np.int64)) for sigma in sigmas for _ in range(_people(mapped))]
    values = [errors for _, errors in known]
    for first, last in ((0, _FIRST), (_FIRST, _ROWS)):
        runs = [Run(mapped, _START, sigma, errors) for sigma, errors in known]
        for run in runs:
            run.pieces.extend(_block(run, first + at) for at in range(last - first))
        drawn = drawing({piece: np.zeros(piece.ask.shape, dtype=np.int64) for run in runs for piece in run.pieces})
        made = [[drawn[piece] for piece in run.pieces] for run in runs]
        values = [np.concatenate([old, *(one.values for one in new)]) for old, new in zip(values, made, strict=True)]
        known = [
            (run.sigma, np.concatenate([run.known, *(_errors(one) for one in new)]))
            for run, new in zip(runs, made, strict=True)
        ]
    matrix = strategy_from(_START).matrix[:_ROWS, :_ROWS]
    white = np.stack([matrix @ rows / sigma for (sigma, _), rows in zip(known, values, strict=True)], axis=1)
    return np.split(white, len(sigmas), axis=1)


def _errors(drawn: Drawn) -> Integers:
    if drawn.errors is None:
        raise ValueError("a daily row carries its noise on")
    return drawn.errors


def _block(run: Run, index: int) -> Piece:
    mapped, day = run.mapped, _START + timedelta(days=index)
    ask = Ask(Wanted.VECTORS, mapped, period_of(day), (Made(day, 1, {}),))
    return _piece(mapped, DAILY, run.sigma, ask, Days(day, day), run)


def _piece(  # noqa: PLR0917  (as a piece has them)
    mapped: FeatureMap, mechanism: str, sigma: int, ask: Ask, days: Days | None = None, run: Run | None = None
) -> Piece:
    month = Month(mapped.category, ask.period, (), (), {})
    nobody = Reservation(owner_day(bytes(16), ask.period), bytes(32), State.RESERVED, {})
    return Piece(month, mapped, mechanism, 1, sigma, nobody, ask, days, run)
