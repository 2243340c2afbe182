"""Daily rows of several categories from sealed traces to proven answers: all of them together under one cap for the day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.answer_kit import Service, answer_in, running, slug_of
from tests.consent_kit import PURPOSE
from tests.twin.worker_kit import OCTOBER, SEPTEMBER, epsilon
from tests.vault_kit import MONTH, NOW, PURCHASE
from vault.answers.reveals import narrow
from vault.budget.days import sigma_of
from vault.db import Database
from vault.imprint.block import DAILY
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.proof.verify import verify_bundle
from vault.schema.category import Category
from vault.schema.consent import ConsentVersion
from vault.schema.question import Candidate, NextChoice, Recommend
from vault.schema.trace import Action, Period, Trace
from vault.seal.ids import new_id
from vault.twin import release
from vault.twin.children import Children
from vault.twin.infer import infer, read_days
from vault.twin.reader import closed_form
from vault.twin.refresh import Outcome

EVERY = mapped_for(Cadence.DAILY)
_, BROWSING, CLICKED, HEALTH = EVERY
MAPS = {category: feature_map(category, Cadence.DAILY) for category in EVERY}
SOCCER = MAPS[BROWSING].codes[MAPS[BROWSING].names.index("Sports: Soccer")]
DECEMBER = Period("2026-12")
QUARTER = (SEPTEMBER, OCTOBER, MONTH)


@pytest.fixture
def service(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(
        sqlite_database, shortkeys, keyring=tmp_path / "keyring", categories=EVERY, cadence=Cadence.DAILY
    )  # fmt: skip
    with made.database.transaction() as session:
        for mapped in MAPS.values():
            release.publish_built_in(session, mapped, made.worker_key)
    with running(made) as found:
        yield found


def live(service: Service, *shared: Category) -> None:
    """Seal and upload what was done on every day that has closed: always the same."""
    said: dict[Category, list[tuple[Action, str, str, dict[str, Any]]]] = {
        PURCHASE: [(Action.BUY, MAPS[PURCHASE].codes[4], "", {})],
        BROWSING: [(Action.READ, "https://news.example/1", "Champions League results", {})],
        CLICKED: [(Action.CART, "acme:4711", "a kettle", {})],
        HEALTH: [(Action.MEASURE, "metric:steps", "", {"quantity_milli": 9_000_000})],
    }
    for category in shared:
        for period, days in zip(QUARTER, (30, 31, 20), strict=True):
            traces = [
                Trace(
                    new_id().hex(),
                    "x",
                    datetime(2026, int(period[5:]), day, 12, tzinfo=UTC),
                    category,
                    *what[:3],
                    **what[3],
                )
                for day in range(1, days + 1)
                for what in said[category]
            ]
            service.upload(service.seal(traces, service.owner.compartment(category, period)))


def twin_of(service: Service, *shared: Category, **changed: Any) -> ConsentVersion:
    allowed = {
        "necessary": frozenset(shared),
        "optional": frozenset(),
        "explicit_special": frozenset({HEALTH} & {*shared}),
        "data_to": DECEMBER,
        "not_after": int((NOW + timedelta(days=90)).timestamp()),
    }
    return service.keep_twin(**allowed | changed)


def about(category: Category, **changed: Any) -> dict[str, Any]:
    special = frozenset({HEALTH} & {category})
    return {"necessary": frozenset({category}), "optional": frozenset(), "explicit_special": special} | changed


def scores(service: Service, mapped: FeatureMap, *codes: str, **changed: Any) -> dict[str, int]:
    """Ask which of some codes comes next, and verify what is answered as the company does."""
    consent = service.consent(**about(mapped.category, **changed))
    asked = Recommend(mapped.category, PURPOSE, tuple(Candidate(code, "") for code in codes), len(codes))
    answer, bundle = answer_in(service.ask(consent, asked))
    assert verify_bundle(bundle, service.trust).failures == ()
    assert len(answer.releases) == len(service.blocks(mapped.category))
    opted_in = frozenset({HEALTH} & {mapped.category})
    question, _, about_texts = narrow(asked, mapped, opted_in, consent.consent_id)
    reading = read_days(closed_form(mapped), mapped, service.blocks(mapped.category), service.clock.at.date())
    assert answer.predictions == infer(reading, question, about_texts).predictions
    return {item.code: item.score_ppm for item in answer.predictions}


def sigmas(service: Service, category: Category) -> list[int]:
    return [block.sigma for block in service.blocks(category)]


def test_sealed_traces_of_four_categories_become_daily_rows_and_proven_answers_under_one_cap(service: Service) -> None:
    live(service, *EVERY)
    with Children(read_texts=True) as children:
        assert service.refresh(children, twin_of(service, *EVERY)) == Outcome(16, "", failed=False)
    for category, mapped in MAPS.items():
        assert sigmas(service, category) == [sigma_of(mapped, 4, late=False)] * 3
        assert {row.map_digest for row in service.stored(category=category)} == {mapped.digest}
    assert all(2.9 < epsilon(service, period) <= 3.0 for period in QUARTER)

    steps = [code for code in MAPS[HEALTH].objects if code.startswith("metric:steps:")]
    found = scores(service, MAPS[HEALTH], *steps)
    assert max(found, key=lambda code: found[code]) == "metric:steps:3", "7,500 to 10,000 a day"
    found = scores(service, MAPS[CLICKED], "funnel:cart", "funnel:buy")
    assert found["funnel:cart"] > found["funnel:buy"]
    dogs = MAPS[BROWSING].codes[MAPS[BROWSING].names.index("Pets: Dogs")]
    found = scores(service, MAPS[BROWSING], SOCCER, dogs)
    assert found[SOCCER] > found[dogs], "read from the titles of pages whose addresses no map knows"
    scores(service, MAPS[PURCHASE], *MAPS[PURCHASE].codes[4:8])


def test_answers_read_over_the_day_on_which_a_category_joined_and_the_noise_changed(service: Service) -> None:
    service.extend(DECEMBER)
    live(service, PURCHASE, CLICKED)
    with Children() as children:
        assert service.refresh(children, twin_of(service, PURCHASE)).rows == 4
        both = twin_of(service, PURCHASE, CLICKED)
        assert service.refresh(children, both) == Outcome(0, "budget-exhausted", failed=False)
        assert service.blocks(CLICKED) == []
        service.clock.at = NOW.replace(month=12, day=9)
        service.refresh(children, both)
    mapped = MAPS[PURCHASE]
    assert sigmas(service, PURCHASE) == [sigma_of(mapped, late=False)] * 4 + [sigma_of(mapped, 2, late=False)]
    assert sigmas(service, CLICKED) == [sigma_of(MAPS[CLICKED], 2, late=False)], "December"
    assert all(2.9 < epsilon(service, period) <= 3.0 for period in (*QUARTER, DECEMBER))
    window = {"data_to": DECEMBER, "not_after": int((NOW + timedelta(days=90)).timestamp())}
    scores(service, mapped, *mapped.codes[4:8], **window)
    scores(service, MAPS[CLICKED], "funnel:cart", "funnel:buy", **window)


def test_readings_that_were_not_explicitly_allowed_stay_sealed_and_take_no_share_of_a_day(service: Service) -> None:
    live(service, PURCHASE, HEALTH)
    with Children() as children:
        twin = twin_of(service, PURCHASE, HEALTH, explicit_special=frozenset())
        assert service.refresh(children, twin) == Outcome(4, "", failed=False)
        assert service.stored(category=HEALTH) == []
        assert sigmas(service, PURCHASE) == [sigma_of(MAPS[PURCHASE], late=False)] * 3
    consent = service.consent(**about(PURCHASE, necessary=frozenset({PURCHASE, HEALTH})))
    assert slug_of(service.ask(consent, NextChoice(HEALTH, PURPOSE, 5))) == "not-covered"
    assert {row.mechanism for row in service.stored()} > {DAILY}
