"""Questions about daily rows: answered from the days that a consent opens and from no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.answer_kit import NEXT, Service, answer_in, running, slug_of
from tests.twin.worker_kit import OCTOBER, RETAIL_DAILY, SEPTEMBER
from tests.vault_kit import MONTH, NOW
from vault.answers.reveals import narrow
from vault.budget.days import sigma_of
from vault.db import Database
from vault.imprint.block import Block, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import Cadence
from vault.imprint.noise import DiscreteGaussian
from vault.schema.answer import Confidence, release_name
from vault.schema.consent import ConsentVersion
from vault.seal.ids import ConsentId, new_id
from vault.seal.signing import SigningKey, new_seed
from vault.twin.children import Children
from vault.twin.infer import Prognosis, infer, read_days
from vault.twin.reader import closed_form
from vault.twin.rows import Place

START = date(2026, 9, 1)
SIGMA = sigma_of(RETAIL_DAILY, late=False)
HABIT = RETAIL_DAILY.day_vector([RETAIL_DAILY.codes[7]])


@pytest.fixture
def service(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(sqlite_database, shortkeys, keyring=tmp_path / "keyring", cadence=Cadence.DAILY)
    made.release_model()
    with running(made) as found:
        yield found


def blocks_of(until: date = date(2026, 11, 20)) -> list[Block]:
    """Make a chain's blocks, a month each, of somebody with one habit."""
    days = (until - START).days + 1
    noise = DiscreteGaussian(SIGMA).sample((days, RETAIL_DAILY.size))
    values = errors(strategy_from(START), noise) + HABIT
    firsts = [first for first in (START, date(2026, 10, 1), date(2026, 11, 1)) if first <= until]
    bounds = [(first - START).days for first in firsts] + [days]
    return [
        Block(new_id() * 2, RETAIL_DAILY.digest, START, first, RETAIL_DAILY.clip, SIGMA, values[one:two])
        for first, one, two in zip(firsts, bounds[:-1], bounds[1:], strict=True)
    ]


def names(consent: ConsentVersion, *blocks: Block) -> set[bytes]:
    return {release_name(consent.subject, block.release_id) for block in blocks}


def expected(blocks: list[Block], asked: date) -> Prognosis:
    question = narrow(NEXT, RETAIL_DAILY, frozenset(), ConsentId(bytes(16))).question
    return infer(read_days(closed_form(RETAIL_DAILY), RETAIL_DAILY, blocks, asked), question)


def test_an_answer_is_what_the_opened_days_say_and_names_them(service: Service) -> None:
    blocks = blocks_of()
    for block in blocks:
        service.put_block(block)
    consent = service.consent()
    answer, _ = answer_in(service.ask(consent))
    assert answer.releases == names(consent, *blocks)
    assert (answer.predictions, answer.confidence) == (
        expected(blocks, NOW.date()).predictions,
        expected(blocks, NOW.date()).confidence,
    )


@pytest.mark.parametrize(
    ("first", "last"), [(OCTOBER, OCTOBER), (OCTOBER, MONTH), (SEPTEMBER, OCTOBER), (MONTH, MONTH)]
)
def test_a_consent_that_covers_some_months_opens_exactly_their_days(service: Service, first: str, last: str) -> None:
    blocks = blocks_of()
    for block in blocks:
        service.put_block(block)
    inside = [block for block in blocks if first <= f"{block.first:%Y-%m}" <= last]
    consent = service.consent(data_from=first, data_to=last)
    answer, _ = answer_in(service.ask(consent))
    assert answer.releases == names(consent, *inside)
    asked = min(NOW.date(), inside[-1].first.replace(day=28) + timedelta(days=4))
    asked = asked if last == MONTH else asked.replace(day=1)  # a closed window is read as of its end
    assert answer.predictions == expected(inside, asked).predictions


def test_a_day_that_closed_is_read_from_then_on(service: Service) -> None:
    whole = blocks_of(date(2026, 11, 21))
    for block in whole[:2]:
        service.put_block(block)
    consent = service.consent()
    assert answer_in(service.ask(consent))[0].releases == names(consent, *whole[:2])
    service.put_block(whole[2])
    assert answer_in(service.ask(consent))[0].releases == names(consent, *whole)
    service.clock.at += timedelta(days=1)
    answer, _ = answer_in(service.ask(consent))
    assert answer.predictions == expected(whole, NOW.date() + timedelta(days=1)).predictions


def test_monthly_rows_beside_daily_ones_are_not_read(service: Service) -> None:
    service.put_rows("completejourney:bread")
    blocks = blocks_of()
    for block in blocks:
        service.put_block(block)
    consent = service.consent()
    assert answer_in(service.ask(consent))[0].releases == names(consent, *blocks)


def test_late_rows_are_made_but_not_read(service: Service) -> None:
    with Children() as children:
        service.refresh(children, service.keep_twin())
    consent = service.consent(data_from=SEPTEMBER)
    answer, _ = answer_in(service.ask(consent))
    assert answer.releases == names(consent, *service.blocks())
    assert len(service.stored()) == len(answer.releases) + 1


@pytest.mark.parametrize("wrong", ["signer", "place", "start"])
def test_a_block_that_is_not_the_workers_or_lies_elsewhere_gives_no_answer(service: Service, wrong: str) -> None:
    blocks = blocks_of()
    stranger = SigningKey(new_seed()) if wrong == "signer" else None
    moved = {
        "signer": None,
        "place": Place(date(2026, 10, 2), 30, START),
        "start": Place(date(2026, 10, 1), 31, date(2026, 9, 2)),
    }[wrong]
    service.put_block(blocks[1], stranger, moved)
    refused = service.ask(service.consent())
    assert refused.status_code != 200
    assert slug_of(refused)


def test_two_rows_of_one_day_are_refused_by_the_reader() -> None:
    from vault.twin.reader import BadBackbone

    blocks = blocks_of()
    again = replace(blocks[1], release_id=new_id() * 2)
    with pytest.raises(BadBackbone):
        read_days(closed_form(RETAIL_DAILY), RETAIL_DAILY, [*blocks, again], NOW.date())
    with pytest.raises(BadBackbone):
        read_days(closed_form(RETAIL_DAILY), RETAIL_DAILY, [replace(blocks[0], map_digest=bytes(32))], NOW.date())


def test_a_habit_shows_through_and_no_rows_say_what_is_common() -> None:
    model = closed_form(RETAIL_DAILY)
    quiet = [replace(block, values=np.tile(HABIT, (len(block.values), 1)), sigma=1) for block in blocks_of()]
    sure = read_days(model, RETAIL_DAILY, quiet, NOW.date())
    nobody = read_days(model, RETAIL_DAILY, [], NOW.date())
    code = RETAIL_DAILY.codes[7]
    assert sure.score_ppm[code] == max(sure.score_ppm.values()) > nobody.score_ppm[code]
    buckets = list(Confidence)
    assert buckets.index(sure.confidence) > buckets.index(nobody.confidence)
    noisy = read_days(model, RETAIL_DAILY, [replace(block, sigma=60_000) for block in quiet], NOW.date())
    assert nobody.score_ppm[code] <= noisy.score_ppm[code] < sure.score_ppm[code]
