"""A second category from sealed traces to a proven answer: both categories together stay under the day's cap."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from tests.answer_kit import NEXT, Service, answer_in, slug_of
from tests.consent_kit import PURPOSE
from tests.twin.worker_kit import OCTOBER, SEPTEMBER, epsilon
from tests.vault_kit import MONTH, PURCHASE, publish
from vault.answers.reveals import narrow
from vault.imprint.features import feature_map
from vault.proof.verify import verify_bundle
from vault.schema.category import Category
from vault.schema.question import Candidate, NextChoice, Recommend
from vault.schema.trace import Action, Trace
from vault.seal.ids import new_id
from vault.twin import release, routes, rows
from vault.twin.children import Children
from vault.twin.infer import infer, read
from vault.twin.reader import closed_form
from vault.twin.refresh import noise_of

BROWSING = Category("pd:BrowsingBehaviour")
CONTENT, RETAIL = feature_map(BROWSING), feature_map(PURCHASE)
SOCCER = CONTENT.codes[CONTENT.names.index("Sports: Soccer")]


@pytest.fixture
def reader(quick: Service) -> Service:
    """An owner who shares purchases and browsing, with empty compartments for both."""
    pages = [quick.owner.extend((PURCHASE, BROWSING), period) for period in (SEPTEMBER, OCTOBER, MONTH)]
    ids = {quick.owner.compartment(c, p).id for p in (SEPTEMBER, OCTOBER, MONTH) for c in (PURCHASE, BROWSING)}
    locked = {name: quick.owner.locked[name] for name in ids}
    publish(quick.database, quick.shortkeys, quick.owner, quick.owner.sign(), pages, locked)
    with quick.database.transaction() as session:
        rows.forget(session, quick.owner.vault)
        release.publish_built_in(session, CONTENT, quick.worker_key)
    return quick


def browse(service: Service, day: int) -> None:
    """Seal and upload a day's pages: titles, whose addresses no map knows."""
    at = datetime(2026, 10, day, 19, tzinfo=UTC)
    pages = [
        Trace(new_id().hex(), "browser", at, BROWSING, Action.READ, f"https://news.example/{day}/{n}", text)
        for n, text in enumerate(["Champions League results", "Soccer transfers of the summer"])
    ]
    service.upload(service.seal(pages, service.owner.compartment(BROWSING, OCTOBER)))


def about(category: Category, **changed: Any) -> dict[str, Any]:
    return {"necessary": frozenset({category}), "optional": frozenset()} | changed


def test_sealed_pages_become_rows_and_an_answer_about_both_stays_under_the_cap(reader: Service) -> None:
    for day in range(1, 29):
        browse(reader, day)
    reader.buy(RETAIL.codes[3])
    twin = reader.keep_twin(necessary=frozenset({PURCHASE, BROWSING}), optional=frozenset())
    with Children() as children:
        assert reader.refresh(children, twin).rows == 4
        assert reader.refresh(children, twin).rows == 0
        for category, mapped in ((PURCHASE, RETAIL), (BROWSING, CONTENT)):
            with reader.database.snapshot() as session:
                found = [reader.read(one) for one in rows.rows_for(session, reader.owner.vault, category)]
            assert [row.sigma for row in found] == [noise_of(mapped, 2).sigma] * 2
        assert 2.9 < epsilon(reader, OCTOBER) <= 3.0
        with reader.database.snapshot() as session:
            shown = rows.rows_for(session, reader.owner.vault, BROWSING)
        assert routes._noise_json(shown, [], date(2026, 11, 23)) == [], "what GET /twin says of daily rows"
        again = reader.refresh(children, reader.keep_twin(**about(PURCHASE)))
        assert (again.rows, again.reason) == (0, ""), "a month keeps the noise that it was made with"

    consent = reader.consent(**about(BROWSING))
    answer, bundle = answer_in(reader.ask(consent, NextChoice(BROWSING, PURPOSE, 20)))
    assert verify_bundle(bundle, reader.trust).failures == ()
    assert len(answer.releases) == 2
    assert {item.code for item in answer.predictions} <= {*CONTENT.objects}
    assert found[1].values[CONTENT.codes.index(SOCCER)] > 0, "28 days of titles, five times the noise"
    reading = read(closed_form(CONTENT), CONTENT, found, MONTH)
    question, _, none_read = narrow(NextChoice(BROWSING, PURPOSE, 20), CONTENT, frozenset(), consent.consent_id)
    assert answer.predictions == infer(reading, question, none_read).predictions
    assert slug_of(reader.ask(consent, NEXT)) == "not-covered"

    moment = tuple(Candidate(f"week:{day}-{part}", "") for day in range(7) for part in range(4))
    cold = Candidate("acme:1", "Soccer: the cup final")
    ranked, bundle = answer_in(reader.ask(consent, Recommend(BROWSING, PURPOSE, (*moment, cold), 4)))
    assert verify_bundle(bundle, reader.trust).failures == ()
    asked, _, texts = narrow(Recommend(BROWSING, PURPOSE, (*moment, cold), 4), CONTENT, frozenset(), consent.consent_id)
    assert texts is not None
    assert texts[-1, CONTENT.codes.index(SOCCER)] > 0
    assert ranked.predictions == infer(reading, asked, texts).predictions


def test_a_month_that_was_made_for_one_category_keeps_its_row_when_another_joins(reader: Service) -> None:
    reader.buy(RETAIL.codes[3])
    alone = reader.keep_twin(**about(PURCHASE))
    with Children() as children:
        assert reader.refresh(children, alone).rows == 2
        both = reader.keep_twin(necessary=frozenset({PURCHASE, BROWSING}), optional=frozenset())
        joined = reader.refresh(children, both)
    assert (joined.rows, joined.reason, joined.failed) == (0, "budget-exhausted", False)
    assert epsilon(reader, OCTOBER) <= 3.0
    assert [reader.read(one).sigma for one in reader.stored()] == [noise_of(RETAIL).sigma] * 2
