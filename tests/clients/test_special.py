"""Keys that no rule may use do not leave the owner: a specially protected category is handed over once it is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.client_kit import PURCHASE, Tamper, company_terms, purchases
from twinvault.company import Company
from twinvault.consenting import this_month
from twinvault.consents import NothingToGive
from twinvault.owner import Owner
from vault.clock import SystemClock
from vault.encoding import parse_b64u
from vault.schema.category import Category
from vault.schema.terms import ConsentKind
from vault.schema.trace import Action, Period, Trace
from vault.seal.handover import KeyKind, parse_handover
from vault.seal.kit import RecoveryKit

Begin = Callable[..., tuple[Owner, RecoveryKit]]
HEALTH = Category("pd:Health")
BOTH = frozenset({PURCHASE, HEALTH})
NOT_HEALTH = {kind: frozenset({PURCHASE}) for kind in KeyKind}


@pytest.fixture
def walker(new_owner: Begin) -> Owner:
    """An owner who shopped and walked in January 2026, and imported both before any consent was given."""
    owner, _ = new_owner(categories=sorted(BOTH))
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    walked = Trace("s1", "watch", at, HEALTH, Action.MEASURE, "metric:steps", "", 6_000_000)
    owner.import_traces([*purchases(), walked])
    return owner


def handed(owner: Owner, tamper: Tamper) -> dict[KeyKind, dict[Category, set[Period]]]:
    """Return, by kind of keys, to which months of which categories the last handovers that left the client hold keys."""
    sent = [one for one in tamper.sent if "/consents" in one.url.path and one.method == "POST"]
    ring = owner._rings.read().ring
    found: dict[KeyKind, dict[Category, set[Period]]] = {}
    for item in json.loads(sent[-1].content).get("handovers", []):
        terms = parse_handover(parse_b64u(item)).terms
        months = found.setdefault(terms.kind, {})
        for name in terms.compartments:
            months.setdefault(ring.compartments[name].category, set()).add(ring.compartments[name].period)
    return found


def categories(months: dict[KeyKind, dict[Category, set[Period]]]) -> dict[KeyKind, set[Category]]:
    """Return only of which categories."""
    return {kind: set(held) for kind, held in months.items()}


def test_an_opt_in_hands_keys_over_and_its_end_takes_them_back(walker: Owner, tamper: Tamper) -> None:
    terms = walker.terms_for(ConsentKind.SELF, BOTH)
    given = walker.give(terms).version
    assert categories(handed(walker, tamper)) == NOT_HEALTH
    assert (walker.cover(), walker.import_traces(purchases(2, month=2)).sent) == (None, 2)
    assert categories(handed(walker, tamper)) == NOT_HEALTH

    terms = walker.consent(given.consent_id).current.terms
    walker.renew(given.consent_id, replace(terms, explicit_special=frozenset({HEALTH})))
    opened = handed(walker, tamper)
    assert categories(opened) == dict.fromkeys(KeyKind, BOTH)
    assert {Period("2026-01"), this_month(SystemClock())} <= opened[KeyKind.RAW][HEALTH], "what was there before too"
    both = {one.keys: one.compartments for one in walker.handed_over(given.consent_id)}

    before = this_month(SystemClock())
    closed = walker.narrow(given.consent_id, replace(terms, explicit_special=frozenset()))
    assert closed.new_epoch == (HEALTH,), "the worker knows the keys of the months to come"
    assert categories(handed(walker, tamper)) == NOT_HEALTH
    left = {one.keys: one.compartments for one in walker.handed_over(given.consent_id)}
    assert all(0 < left[kind] < both[kind] for kind in KeyKind)
    months = {before, this_month(SystemClock())}
    current = {period: page.current(HEALTH) for period, page in walker._rings.read().ring.pages.items()}
    epochs = {period: key.epoch for period, key in current.items() if key is not None}
    assert any(epochs == {period: 2 if period >= this else 1 for period in epochs} for this in months)
    walker.cover()
    assert categories(handed(walker, tamper)) == NOT_HEALTH


def test_neither_a_cohort_nor_a_company_gets_keys_that_were_not_allowed(
    walker: Owner, company: Company, tamper: Tamper
) -> None:
    cohort = walker.terms_for(ConsentKind.COHORT, BOTH)
    walker.give(cohort)
    assert categories(handed(walker, tamper)) == {KeyKind.RAW: {PURCHASE}}
    asked = company_terms(company, walker, necessary=BOTH, explicit_special=frozenset({HEALTH}))
    request = walker.read_request(company.sign_request(asked))
    walker.give_company(request, replace(asked, explicit_special=frozenset()))
    assert categories(handed(walker, tamper)) == {KeyKind.IMPRINT: {PURCHASE}}
    walker.give_company(request)
    assert categories(handed(walker, tamper)) == {KeyKind.IMPRINT: BOTH}


def test_a_consent_that_would_open_nothing_is_not_sent_and_says_what_allows_it(walker: Owner, tamper: Tamper) -> None:
    terms = walker.terms_for(ConsentKind.SELF, [HEALTH])
    tamper.sent.clear()
    with pytest.raises(NothingToGive, match=r"specially protected.*--special pd:Health"):
        walker.give(terms)
    assert [one.url.path for one in tamper.sent if one.method == "POST" and "/consents" in one.url.path] == []
    given = walker.give(replace(terms, explicit_special=frozenset({HEALTH}))).version
    with pytest.raises(NothingToGive, match="specially protected"):
        walker.narrow(given.consent_id, terms)
    assert walker.consent(given.consent_id).current.version == 1
