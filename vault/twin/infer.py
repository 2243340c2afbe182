"""What an answer says: a function of noisy rows, the question and the public backbone, and of nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt
import torch

from vault.imprint.block import Block
from vault.imprint.features import FeatureMap
from vault.imprint.rows import Row
from vault.schema.answer import Confidence, Prediction
from vault.schema.question import NextChoice, Recommend
from vault.schema.trace import Period, period_of
from vault.twin.levels import Level, read_level
from vault.twin.reader import MAX_MONTHS, Backbone, BadBackbone, Months, Reader, maps_of

GRID_PPM: Final = 5_000
MOST_PPM: Final = 950_000
ABSTAIN_BELOW_PPM: Final = 20_000
_DOUBT: Final = 100  # a text that is about nothing else than a code to 0.32 is read half
_MEDIUM_FROM: Final = 0.03
_HIGH_FROM: Final = 0.1


@dataclass(frozen=True, slots=True)
class Prognosis:
    """A shaped prediction, before it is charged, logged and signed.

    Args:
        predictions: Best first, by falling score and then by code; empty if the twin abstains.
        confidence: `none` exactly when it abstains.
    """

    predictions: tuple[Prediction, ...]
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Reading:
    """What a backbone reads in one person's rows, whatever the question.

    Args:
        score_ppm: By code, in steps of `GRID_PPM` and bounded.
        confidence: How far the rows decided the scores.
    """

    score_ppm: Mapping[str, int]
    confidence: Confidence


@torch.inference_mode()
def read(backbone: Backbone, feature_map: FeatureMap, rows: Sequence[Row], asked: Period) -> Reading:
    """Read one person's rows.

    Scores are probabilities that a code occurs on the next day with a trace, rounded and bounded.

    Args:
        backbone: A model with a verified certificate, or the closed-form reader.
        feature_map: The map of the question's category.
        rows: The imprint rows that the consent opens, in any order, at most one a month; those of the
            `MAX_MONTHS` months before `asked` are read. None at all is answered from the prior.
        asked: The month in which the question is asked.

    Raises:
        BadBackbone: Backbone or rows belong to another feature map, or two rows to one month.

    Guarantees: equal arguments give equal results; nothing else is read, so two vaults with equal
    rows cannot be told apart, whatever their traces were.
    """
    if len({row.period for row in rows}) != len(rows):
        raise BadBackbone("Two imprint rows describe the same month; open only the one in force.")
    _verify_map(backbone, feature_map, {(row.map_digest, len(row.values)) for row in rows})
    number = month_number(asked)
    return _read(backbone, feature_map, _months(feature_map, rows, number), number)


@torch.inference_mode()
def read_days(backbone: Backbone, feature_map: FeatureMap, blocks: Sequence[Block], asked: date) -> Reading:
    """Read one person's daily rows; what `read` says of monthly ones holds.

    Args:
        backbone: A model with a verified certificate, or the closed-form reader.
        feature_map: The map of the question's category.
        blocks: What the consent opens, in any order; those of days before `asked` are read. They may have been made
            through the backbone's lens.
        asked: The day on which the question is asked.

    Raises:
        BadBackbone: Backbone or rows belong to another feature map, a day has two rows, of whichever maps, or a chain
            has two noises.
    """
    _verify_map(backbone, feature_map, {(block.map_digest, block.values.shape[1]) for block in blocks})
    in_order = sorted(blocks, key=lambda block: block.first)
    if any(following.first <= block.last for block, following in pairwise(in_order)):
        raise BadBackbone("Two imprint rows describe the same day; open only the ones in force.")
    number = month_number(period_of(asked))
    try:
        plain, *projected = (
            level_months(
                mapped, read_level(mapped, [one for one in blocks if one.map_digest == mapped.digest], asked), number
            )
            for mapped in maps_of(feature_map, backbone)
        )
    except ValueError as error:
        raise BadBackbone("The imprint rows of one chain have different noise, which no chain has.") from error
    return _read(backbone, feature_map, plain, number, *projected)


def level_months(feature_map: FeatureMap, level: Level | None, asked: int) -> Months:
    """Return a level as the reader takes it: the one month before the asked one, worth as many as it averages."""
    if level is None:
        return _months(feature_map, (), asked)
    return Months(
        rows=torch.from_numpy(level.values).unsqueeze(0),
        sigma=torch.tensor([level.sigma], dtype=torch.float64),
        month=torch.tensor([asked - 1], dtype=torch.float64),
        present=torch.tensor([level.months], dtype=torch.float64),
    )


def _verify_map(backbone: Backbone, feature_map: FeatureMap, rows: Collection[tuple[bytes, int]]) -> None:
    """Refuse rows, each by its map's digest and its number of coordinates, that the backbone does not read."""
    known = {(mapped.digest, mapped.size) for mapped in maps_of(feature_map, backbone)}
    if (
        backbone.map_digest != feature_map.digest
        or not known.issuperset(rows)
        or len(backbone.popularity) != feature_map.size - 1
    ):
        raise BadBackbone("The backbone and the imprint rows were not made under the same feature map.")


def _read(
    backbone: Backbone, feature_map: FeatureMap, seen: Months, asked: int, projected: Months | None = None
) -> Reading:
    scores, reliance = _score(backbone, feature_map, seen, asked, projected)
    ppm = np.clip(np.rint(scores * 1e6 / GRID_PPM).astype(np.int64) * GRID_PPM, 0, MOST_PPM)
    return Reading(dict(zip(feature_map.codes[:-2], ppm[:-1].tolist(), strict=True)), _confidence(reliance))


def infer(reading: Reading, question: NextChoice | Recommend, about: npt.NDArray[np.int16] | None = None) -> Prognosis:
    """Answer a question from what was read.

    The order, too, is that of the rounded scores. A candidate whose code the map does not know gets the score of
    the codes that its text is about, each counting as much as the text is about it; one that is about none, the
    lowest score that any code has. The twin abstains if no score reaches `ABSTAIN_BELOW_PPM`.

    Args:
        reading: What a backbone read in the rows.
        question: Over any codes.
        about: [candidates, codes of the map] how much each candidate's text is about each code; None if no text is read.
    """
    known = reading.score_ppm
    match question:
        case NextChoice():
            offered = [(-score, code) for code, score in known.items()]
        case Recommend():
            codes = [item.code for item in question.candidates]
            texts = [min(known.values())] * len(codes) if about is None else _scores_of(about, known)
            offered = [(-known.get(code, score), code) for code, score in zip(codes, texts, strict=True)]
        case _:
            assert_never(question)
    best = heapq.nsmallest(question.top_n, offered)
    if -best[0][0] < ABSTAIN_BELOW_PPM:
        return Prognosis((), Confidence.NONE)
    return Prognosis(tuple(Prediction(code, -negated) for negated, code in best), reading.confidence)


def _scores_of(about: npt.NDArray[np.int16], known: Mapping[str, int]) -> list[int]:
    """Return each text's score on the grid: the mean of the codes it is about, the lowest score weighing `_DOUBT`."""
    weights, scores = about.astype(np.int64), np.array(list(known.values()), dtype=np.int64)
    total, weight = weights @ scores + _DOUBT * scores.min(), weights.sum(1) + _DOUBT
    rounded: list[int] = ((2 * total + weight * GRID_PPM) // (2 * weight * GRID_PPM) * GRID_PPM).tolist()
    return rounded


def month_number(period: Period) -> int:
    """Return months since year 0, so that differences are ages."""
    return int(period[:4]) * 12 + int(period[5:]) - 1


def _months(feature_map: FeatureMap, rows: Sequence[Row], asked: int) -> Months:
    by_month = {month_number(row.period): row for row in rows}
    months = [number for number in range(asked - MAX_MONTHS, asked) if number in by_month]
    values = np.array([by_month[number].values for number in months], dtype=np.float64)
    return Months(
        rows=torch.from_numpy(values.reshape(len(months), feature_map.size)),
        sigma=torch.tensor([by_month[number].sigma for number in months], dtype=torch.float64),
        month=torch.tensor(months, dtype=torch.float64),
        present=torch.ones(len(months), dtype=torch.float64),
    )


def _score(
    backbone: Backbone, feature_map: FeatureMap, seen: Months, asked: int, projected: Months | None
) -> tuple[npt.NDArray[np.float64], float]:
    reader = _reader(feature_map, backbone)
    scalars = torch.from_numpy(backbone.scalars).double()
    odds, reliance = reader.log_odds(scalars, seen, torch.tensor([asked], dtype=torch.float64), projected)
    return torch.sigmoid(odds[0]).numpy(), float(reliance)


@lru_cache(maxsize=16)
def _reader(feature_map: FeatureMap, backbone: Backbone) -> Reader:
    return Reader.of(feature_map, backbone, torch.float64)


def _confidence(reliance: float) -> Confidence:
    if reliance >= _HIGH_FROM:
        return Confidence.HIGH
    return Confidence.MEDIUM if reliance >= _MEDIUM_FROM else Confidence.LOW
