"""Questions about days seen through a lens: read by the model that has it, beside the plain days of before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.answer_kit import NEXT, Service, answer_in, running, slug_of
from tests.answers.test_daily import SIGMA, names
from tests.twin.lens_kit import later, release_trained, seen_through, with_habits, withdraw_model
from tests.twin.worker_kit import OCTOBER, RETAIL_DAILY
from tests.vault_kit import MONTH, NOW
from vault.answers.reveals import narrow
from vault.db import Database
from vault.imprint.block import Block, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import Cadence, FeatureMap
from vault.imprint.noise import DiscreteGaussian
from vault.proof.certificate import Manifest
from vault.seal.ids import ConsentId, new_id
from vault.twin.infer import Prognosis, infer, read_days
from vault.twin.reader import Backbone, BadBackbone

MODEL = with_habits()
SEEN = seen_through(MODEL)
PLAIN_FROM, SEEN_FROM = date(2026, 9, 1), date(2026, 10, 1)


@pytest.fixture
def service(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(sqlite_database, shortkeys, keyring=tmp_path / "keyring", cadence=Cadence.DAILY)
    made.release_model()
    with running(made) as found:
        yield found


def release(service: Service, model: Backbone = MODEL) -> Manifest:
    return release_trained(service.database, model, service.worker_key)


def chain(mapped: FeatureMap, start: date, *days: int) -> list[Block]:
    """Make a chain's blocks, the days of a month each, of somebody with one habit."""
    noise = DiscreteGaussian(SIGMA).sample((sum(days), mapped.size))
    values = errors(strategy_from(start), noise) + mapped.day_vector([RETAIL_DAILY.codes[7]])
    ends = [sum(days[: at + 1]) for at in range(len(days))]
    return [
        Block(
            new_id() * 2, mapped.digest, start, date.fromordinal(start.toordinal() + end - count), mapped.clip, SIGMA,
            values[end - count : end],
        )
        for end, count in zip(ends, days, strict=True)
    ]  # fmt: skip


def both_kinds() -> list[Block]:
    return [*chain(RETAIL_DAILY, PLAIN_FROM, 30), *chain(SEEN, SEEN_FROM, 31, 20)]


def put(service: Service, *blocks: Block) -> None:
    for block in blocks:
        service.put_block(block)


def expected(model: Backbone, blocks: list[Block]) -> Prognosis:
    question = narrow(NEXT, RETAIL_DAILY, frozenset(), ConsentId(bytes(16))).question
    return infer(read_days(model, RETAIL_DAILY, blocks, NOW.date()), question)


def test_an_answer_reads_both_kinds_of_rows_and_names_exactly_those(service: Service) -> None:
    release(service)
    blocks = both_kinds()
    put(service, *blocks)
    consent = service.consent()
    answer, _ = answer_in(service.ask(consent))
    assert answer.releases == names(consent, *blocks)
    assert (answer.predictions, answer.confidence) == (
        expected(MODEL, blocks).predictions,
        expected(MODEL, blocks).confidence,
    )
    partly = service.consent(data_from=OCTOBER, data_to=MONTH)
    assert answer_in(service.ask(partly))[0].releases == names(partly, *blocks[1:])


def test_a_later_model_with_the_lens_reads_the_rows_on(service: Service) -> None:
    first = release(service)
    blocks = both_kinds()
    put(service, *blocks)
    newer = later(MODEL)
    release(service, newer)
    consent = service.consent()
    for withdrawn in (False, True):
        if withdrawn:
            withdraw_model(service.database, first)
        answer, _ = answer_in(service.ask(consent))
        assert answer.releases == names(consent, *blocks)
        assert answer.predictions == expected(newer, blocks).predictions


@pytest.mark.parametrize("other", ["another lens", "no lens"])
def test_rows_through_a_lens_that_the_model_does_not_have_are_neither_read_nor_named(
    service: Service, other: str
) -> None:
    answering = with_habits(seed=2) if other == "another lens" else replace(MODEL, lens=None)
    release(service, answering)
    blocks = both_kinds()
    put(service, *blocks)
    consent = service.consent()
    answer, _ = answer_in(service.ask(consent))
    assert answer.releases == names(consent, blocks[0])
    assert answer.predictions == expected(answering, blocks[:1]).predictions


@pytest.mark.parametrize(("claimed", "made"), [(SEEN, RETAIL_DAILY), (RETAIL_DAILY, SEEN)], ids=["wide", "narrow"])
def test_a_row_with_another_maps_number_of_columns_gives_no_answer(
    service: Service, claimed: FeatureMap, made: FeatureMap
) -> None:
    release(service)
    block = replace(chain(made, SEEN_FROM, 31)[0], map_digest=claimed.digest)
    put(service, block)
    refused = service.ask(service.consent())
    assert (refused.status_code, slug_of(refused)) == (500, "bad-backbone")
    with pytest.raises(BadBackbone, match="same feature map"):
        read_days(MODEL, RETAIL_DAILY, [block], NOW.date())


def test_a_day_with_a_row_of_each_map_gives_no_answer(service: Service) -> None:
    release(service)
    blocks = [*both_kinds(), *chain(SEEN, date(2026, 9, 30), 1)]
    put(service, *blocks)
    refused = service.ask(service.consent())
    assert (refused.status_code, slug_of(refused)) == (500, "bad-backbone")
    with pytest.raises(BadBackbone, match="same day"):
        read_days(MODEL, RETAIL_DAILY, blocks, NOW.date())
    with pytest.raises(BadBackbone, match="same day"):  # nor do two chains of one map share a day
        read_days(MODEL, RETAIL_DAILY, [*chain(SEEN, PLAIN_FROM, 30, 31), *chain(SEEN, SEEN_FROM, 31)], NOW.date())
    read_days(MODEL, RETAIL_DAILY, blocks[:-1], NOW.date())
