"""An answer is a function of noisy rows, question and backbone: nothing else shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from vault.imprint.features import FeatureMap
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row
from vault.schema.answer import Confidence
from vault.schema.category import Purpose, parse_category, parse_purpose
from vault.schema.question import Candidate, NextChoice, Recommend
from vault.schema.trace import parse_period
from vault.twin.infer import ABSTAIN_BELOW_PPM, GRID_PPM, MOST_PPM, Prognosis, infer, read
from vault.twin.reader import BadBackbone, closed_form, dump_backbone, parse_backbone

MakeRows = Callable[..., list[Row]]
ASKED = parse_period("2026-09")
CATEGORY = parse_category("pd:Purchase")


@pytest.fixture(scope="module")
def purpose() -> Purpose:
    return parse_purpose("dpv:ServicePersonalisation")


def _habit(retail: FeatureMap, code: int, days: int, months: int = 8) -> np.ndarray:
    """Return one and the same noisy rows on every run: how sure an answer is depends on them."""
    noise = np.rint(np.random.default_rng(40).normal(0.0, 422.0, (months, retail.size))).astype(np.int64)
    return noise + days * retail.day_vector([retail.codes[code]])


def _ask(retail: FeatureMap, rows: list[Row], question: NextChoice | Recommend) -> Prognosis:
    return infer(read(closed_form(retail), retail, rows, ASKED), question)


def test_equal_rows_give_equal_answers(retail: FeatureMap, make_rows: MakeRows, purpose: Purpose) -> None:
    values = _habit(retail, 40, 10)
    question = NextChoice(CATEGORY, purpose, 20)
    first = _ask(retail, make_rows(values), question)
    assert _ask(retail, make_rows(values.copy())[::-1], question) == first


def test_a_habit_is_read_and_other_rows_change_nothing(
    retail: FeatureMap, make_rows: MakeRows, purpose: Purpose
) -> None:
    rows = make_rows(_habit(retail, 40, 12))
    question = NextChoice(CATEGORY, purpose, 5)
    answer = _ask(retail, rows, question)
    assert answer.predictions[0].code == retail.codes[40]
    assert answer.confidence in {Confidence.MEDIUM, Confidence.HIGH}
    later = make_rows(np.full((10, retail.size), 9_999))[8:]
    assert _ask(retail, rows + later, question) == answer


@pytest.mark.parametrize("months", [0, 1, 8])
def test_an_empty_vault_answers_like_any_low_information_twin(
    retail: FeatureMap, make_rows: MakeRows, purpose: Purpose, months: int
) -> None:
    rows = make_rows(DiscreteGaussian(422).sample((months, retail.size))) if months else []
    answer = _ask(retail, rows, NextChoice(CATEGORY, purpose, 20))
    assert len(answer.predictions) == 20
    if not months:
        assert answer.confidence is Confidence.LOW


def test_scores_lie_on_the_public_grid(retail: FeatureMap, make_rows: MakeRows, purpose: Purpose) -> None:
    answer = _ask(retail, make_rows(np.full((8, retail.size), 2**30)), NextChoice(CATEGORY, purpose, 20))
    for item in answer.predictions:
        assert item.score_ppm % GRID_PPM == 0
        assert 0 <= item.score_ppm <= MOST_PPM


def test_abstention_depends_on_noisy_values_only(retail: FeatureMap, make_rows: MakeRows, purpose: Purpose) -> None:
    unlikely = int(np.argmin(closed_form(retail).popularity[:-1]))
    question = Recommend(CATEGORY, purpose, (Candidate(retail.codes[unlikely], ""),), 1)
    assert _ask(retail, [], question) == Prognosis((), Confidence.NONE)
    # The same question of the same person: only the rows' noisy values decide.
    loud = np.zeros((8, retail.size), dtype=np.int64)
    loud[:, unlikely] = 40 * retail.content
    loud[:, -1] = 40 * retail.active_day
    answer = _ask(retail, make_rows(loud), question)
    assert answer.predictions[0].score_ppm >= ABSTAIN_BELOW_PPM
    assert _ask(retail, make_rows(np.zeros_like(loud)), question).confidence is Confidence.NONE


def test_unknown_candidates_get_the_floor(retail: FeatureMap, make_rows: MakeRows, purpose: Purpose) -> None:
    rows = make_rows(_habit(retail, 40, 12))
    offered = (Candidate("acme:unheard-of", "a thing"), Candidate(retail.codes[40], ""))
    answer = _ask(retail, rows, Recommend(CATEGORY, purpose, offered, 2))
    assert [item.code for item in answer.predictions] == [retail.codes[40], "acme:unheard-of"]
    only = Recommend(CATEGORY, purpose, offered[:1], 1)
    assert _ask(retail, rows, only).confidence is Confidence.NONE


def test_a_text_gets_the_scores_of_what_it_is_about(retail: FeatureMap, make_rows: MakeRows, purpose: Purpose) -> None:
    reading = read(closed_form(retail), retail, make_rows(_habit(retail, 40, 12)), ASKED)
    known, offered = reading.score_ppm, tuple(Candidate(f"acme:{at}", "a text") for at in range(4))
    about = np.zeros((4, retail.size - 2), dtype=np.int16)
    about[1, 40] = 10_000
    about[2, [40, 41]] = 5_000
    about[3, 40] = 50
    answer = infer(reading, Recommend(CATEGORY, purpose, offered, 4), about)
    got = {item.code: item.score_ppm for item in answer.predictions}
    high, low, floor = known[retail.codes[40]], known[retail.codes[41]], min(known.values())
    assert [item.code for item in answer.predictions] == ["acme:1", "acme:2", "acme:3", "acme:0"]
    assert got["acme:0"] == floor
    assert abs(got["acme:1"] - high) <= 2 * GRID_PPM
    assert abs(got["acme:2"] - (high + low) / 2) <= 2 * GRID_PPM
    assert abs(got["acme:3"] - (high + 2 * floor) / 3) <= GRID_PPM
    assert not any(score % GRID_PPM for score in got.values())
    # A code that the map knows is scored by its rows, whatever is said about it.
    both = Recommend(CATEGORY, purpose, (Candidate(retail.codes[41], "a text"),), 1)
    assert infer(reading, both, about[1:2]) == infer(reading, both)


def test_rows_of_another_map_or_twice_the_month_are_refused(
    retail: FeatureMap, make_rows: MakeRows, purpose: Purpose
) -> None:
    question = NextChoice(CATEGORY, purpose, 3)
    row = make_rows(np.zeros((1, retail.size), dtype=np.int64))[0]
    with pytest.raises(BadBackbone, match="same month"):
        _ask(retail, [row, row], question)
    other = Row(row.release_id, bytes(32), row.period, 0, row.clip, row.sigma, row.values)
    with pytest.raises(BadBackbone, match="feature map"):
        _ask(retail, [other], question)
    foreign = replace(closed_form(retail), map_digest=bytes(32))
    with pytest.raises(BadBackbone, match="feature map"):
        read(foreign, retail, [row], ASKED)


def test_a_backbone_has_one_spelling(retail: FeatureMap) -> None:
    data = dump_backbone(closed_form(retail))
    assert dump_backbone(parse_backbone(data)) == data
    assert parse_backbone(data).digest == closed_form(retail).digest
    axes = np.eye(2, retail.size - 1, dtype=np.float32)
    with_habits = replace(closed_form(retail), axes=axes, variance=np.array([0.5, 0.0], dtype=np.float32))
    more = dump_backbone(with_habits)
    read_back = parse_backbone(more)
    assert (read_back.axes == axes).all()
    assert read_back.variance.tolist() == [0.5, 0.0]
    assert dump_backbone(read_back) == more != data
    negative = dump_backbone(replace(with_habits, variance=-with_habits.variance))
    not_a_number = data[:-4] + b"\0\0\xc0\x7f"
    for broken in (
        *(b"", data[:-1], data + b"\0", b"X" + data[1:], not_a_number, data[:-4] + bytes(4)),
        *(negative, more[:-1], more[:-4], more + bytes(4), more[:-4] + b"\0\0\xc0\x7f"),
    ):
        with pytest.raises(BadBackbone):
            parse_backbone(broken)


def test_inference_needs_no_trainer() -> None:
    code = "import sys, vault.twin.infer; sys.exit('opacus' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
