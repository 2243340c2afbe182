"""Readings and clicks from sealed batches to a proven answer: what was not explicitly allowed stays sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.answer_kit import Service, answer_in, slug_of
from tests.consent_kit import PURPOSE
from tests.twin.worker_kit import OCTOBER, SEPTEMBER, epsilon
from tests.vault_kit import MONTH, PURCHASE, publish
from vault.answers.reveals import narrow
from vault.imprint.features import feature_map
from vault.policy.permits import NotCovered, decide_train
from vault.proof.verify import verify_bundle
from vault.schema.category import Category
from vault.schema.question import Candidate, NextChoice, Recommend
from vault.schema.terms import ConsentKind
from vault.schema.trace import Action, Trace
from vault.seal.ids import ConsentId, new_id
from vault.twin import release, rows
from vault.twin.children import Children
from vault.twin.infer import infer, read
from vault.twin.months import open_months, plan
from vault.twin.opening import Ask, Wanted
from vault.twin.reader import closed_form
from vault.twin.refresh import noise_of
from vault.twin.requests import TRAIN_PURPOSE

HEALTH, CLICKED, NO_MAP = Category("pd:Health"), Category("pd:LinkClicked"), Category("pd:Location")
MEASURED, CLICKS, RETAIL = feature_map(HEALTH), feature_map(CLICKED), feature_map(PURCHASE)
ALL = frozenset({PURCHASE, HEALTH, CLICKED})
ALLOWED = {"explicit_special": frozenset({HEALTH})}


@pytest.fixture
def walker(quick: Service) -> Service:
    """An owner with empty compartments of purchases, readings and clicks."""
    months = (SEPTEMBER, OCTOBER, MONTH)
    every = sorted({*ALL, NO_MAP})
    pages = [quick.owner.extend(every, period) for period in months]
    ids = {quick.owner.compartment(category, period).id for period in months for category in every}
    publish(
        quick.database, quick.shortkeys, quick.owner, quick.owner.sign(), pages,
        {name: quick.owner.locked[name] for name in ids},
    )  # fmt: skip
    with quick.database.transaction() as session:
        rows.forget(session, quick.owner.vault)
        for mapped in (MEASURED, CLICKS):
            release.publish_built_in(session, mapped, quick.worker_key)
    return quick


def at(day: int) -> datetime:
    return datetime(2026, 10, day, 12, tzinfo=UTC)


def walk(service: Service) -> None:
    """Seal and upload 28 days of 9,000 steps each, counted hour by hour."""
    hours = [
        Trace(
            new_id().hex(), "watch", at(day).replace(hour=hour), HEALTH, Action.MEASURE, "metric:steps", "", 1_000_000
        )
        for day in range(1, 29)
        for hour in range(8, 17)
    ]
    service.upload(service.seal(hours, service.owner.compartment(HEALTH, OCTOBER)))


def shop(service: Service) -> None:
    """Seal and upload 28 days on which something was put into the cart and not bought."""
    clicks = [
        Trace(new_id().hex(), "shop", at(day), CLICKED, Action.CART, "acme:4711", "a kettle") for day in range(1, 29)
    ]
    service.upload(service.seal(clicks, service.owner.compartment(CLICKED, OCTOBER)))


def stored(service: Service, category: Category) -> Sequence[Any]:
    with service.database.snapshot() as session:
        return [service.read(one) for one in rows.rows_for(session, service.owner.vault, category)]


def about(category: Category, **changed: Any) -> dict[str, Any]:
    return {"necessary": frozenset({category}), "optional": frozenset()} | changed


def test_readings_and_clicks_become_rows_and_answers_under_one_cap_for_the_day(walker: Service) -> None:
    walk(walker)
    shop(walker)
    walker.buy(RETAIL.codes[3])
    twin = walker.keep_twin(necessary=ALL, optional=frozenset(), **ALLOWED)
    with Children() as children:
        assert walker.refresh(children, twin).rows == 6
        before = {category: [row.values.tolist() for row in stored(walker, category)] for category in ALL}
        assert walker.refresh(children, twin).rows == 0
    assert {category: [row.values.tolist() for row in stored(walker, category)] for category in ALL} == before
    for category, mapped in ((PURCHASE, RETAIL), (HEALTH, MEASURED), (CLICKED, CLICKS)):
        assert [row.sigma for row in stored(walker, category)] == [noise_of(mapped, 3).sigma] * 2
        assert {row.map_digest for row in stored(walker, category)} == {mapped.digest}
    assert 2.9 < epsilon(walker, OCTOBER) <= 3.0

    # 28 days of one code: more than nine times the noise.
    assert 28 * MEASURED.content > 9 * noise_of(MEASURED, 3).sigma
    consent = walker.consent(**about(HEALTH, **ALLOWED))
    ranges = tuple(Candidate(code, "") for code in MEASURED.objects if code.startswith("metric:steps:"))
    answer, bundle = answer_in(walker.ask(consent, Recommend(HEALTH, PURPOSE, ranges, 6)))
    assert verify_bundle(bundle, walker.trust).failures == ()
    assert answer.predictions[0].code == "metric:steps:3", "7,500 to 10,000 a day"
    question, _, none_read = narrow(NextChoice(HEALTH, PURPOSE, 20), MEASURED, frozenset({HEALTH}), consent.consent_id)
    answer, bundle = answer_in(walker.ask(consent, NextChoice(HEALTH, PURPOSE, 20)))
    assert verify_bundle(bundle, walker.trust).failures == ()
    reading = read(closed_form(MEASURED), MEASURED, stored(walker, HEALTH), MONTH)
    assert answer.predictions == infer(reading, question, none_read).predictions

    consent = walker.consent(**about(CLICKED))
    answer, bundle = answer_in(walker.ask(consent, NextChoice(CLICKED, PURPOSE, 7)))
    assert verify_bundle(bundle, walker.trust).failures == ()
    assert {item.code for item in answer.predictions} <= {*CLICKS.objects}
    score = {item.code: item.score_ppm for item in answer.predictions}
    assert score["funnel:cart"] > score["funnel:buy"]


def test_readings_that_were_not_explicitly_allowed_stay_sealed_and_hold_up_nothing_else(walker: Service) -> None:
    walk(walker)
    walker.buy(RETAIL.codes[3])
    both = frozenset({PURCHASE, HEALTH})
    twin = walker.keep_twin(necessary=both, optional=frozenset())
    with Children() as children:
        assert walker.refresh(children, twin).rows == 2
    assert stored(walker, HEALTH) == []
    assert [row.sigma for row in stored(walker, PURCHASE)] == [noise_of(RETAIL).sigma] * 2, "and take no share"
    with Children() as children:
        alone = walker.refresh(children, walker.keep_twin(**about(HEALTH, optional=frozenset({NO_MAP}))))
    assert (alone.rows, alone.reason) == (0, "not-covered")
    consent = walker.consent(necessary=both, optional=frozenset())
    assert slug_of(walker.ask(consent, NextChoice(HEALTH, PURPOSE, 5))) == "not-covered"


def test_a_cohort_would_learn_on_how_many_days_a_range_occurred(walker: Service) -> None:
    walk(walker)
    given = walker.give(
        ConsentKind.COHORT, data_from=SEPTEMBER, purposes=frozenset({TRAIN_PURPOSE}), **about(HEALTH, **ALLOWED)
    )
    with Children() as children:
        worker = walker.worker(children)
        with walker.database.snapshot() as session:
            opening = plan(session, worker, ConsentId(given.consent_id), decide_train, TRAIN_PURPOSE)
        october = next(month for month in opening.months if month.period == OCTOBER)
        (found,) = open_months(worker, opening, [(october, Ask(Wanted.DAYS, MEASURED, OCTOBER))])
    at = MEASURED.codes.index("metric:steps:3")
    assert found[0] == 28, "days with a reading"
    assert {place: int(days) for place, days in enumerate(found[1 : MEASURED.size]) if days} == {at: 28}
    assert (found[MEASURED.size :] == 28 * MEASURED.day_vector(["metric:steps:3"])).all()


def test_a_cohort_consent_without_explicit_opt_in_hands_no_child_a_key_to_readings(walker: Service) -> None:
    walk(walker)
    training = {"data_from": SEPTEMBER, "purposes": frozenset({TRAIN_PURPOSE})}
    both = walker.give(ConsentKind.COHORT, necessary=frozenset({PURCHASE, HEALTH}), optional=frozenset(), **training)
    alone = walker.give(ConsentKind.COHORT, **about(HEALTH, **training, optional=frozenset({NO_MAP})))
    with Children() as children, walker.database.snapshot() as session:
        worker = walker.worker(children)
        opening = plan(session, worker, ConsentId(both.consent_id), decide_train, TRAIN_PURPOSE)
        with pytest.raises(NotCovered):
            plan(session, worker, ConsentId(alone.consent_id), decide_train, TRAIN_PURPOSE)
    assert {month.category for month in opening.months} == {PURCHASE}
    readings = {walker.owner.compartment(HEALTH, period).id for period in (SEPTEMBER, OCTOBER, MONTH)}
    assert opening.keys.seeds
    assert not readings & opening.keys.seeds.keys()
