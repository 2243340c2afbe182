from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.client_kit import (
    PASSPHRASE,
    PURCHASE,
    Service,
    Tamper,
    company_terms,
    posted_handovers,
    purchases,
)
from twinvault.api import Api, ApiError
from twinvault.company import Company
from twinvault.consenting import this_month
from twinvault.consents import NothingToGive, UnknownConsent
from twinvault.owner import Owner
from twinvault.profile import Profile
from twinvault.terms import OWN_PURPOSE
from vault.clock import SystemClock
from vault.errors import VaultError
from vault.schema.category import CATEGORIES, Category
from vault.schema.consent import ConsentEvent
from vault.schema.question import NextChoice, QuestionKind
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period, periods_from
from vault.seal.handover import KeyKind, parse_handover
from vault.seal.kit import RecoveryKit
from vault.seal.ring import MONTHS_AHEAD

Begin = Callable[..., tuple[Owner, RecoveryKit]]


def test_a_vault_opens_by_passphrase_and_by_kit_and_by_nothing_else(
    service: Service, api: Api, new_owner: Begin, tmp_path: Path
) -> None:
    owner, kit = new_owner(passphrase=PASSPHRASE)
    profile = Profile.load(owner.profile.folder)
    stored = b"".join(path.read_bytes() for path in profile.folder.iterdir())
    assert PASSPHRASE.encode() not in stored
    assert Owner.unlock(profile, passphrase=PASSPHRASE, api=api).vault == owner.vault
    assert Owner.unlock(profile, kit=kit, api=api).vault == owner.vault
    with pytest.raises(ApiError) as refusal:
        Owner.unlock(profile, passphrase=PASSPHRASE + "r", api=api)
    assert (refusal.value.slug, refusal.value.status) == ("not-stored", 404)
    assert "passphrase" in refusal.value.next_step
    with pytest.raises(VaultError):
        Owner.unlock(profile, passphrase="", api=api)


def many_categories() -> list[Category]:
    return sorted(CATEGORIES)[:20]


def test_a_vault_of_many_categories_begins_with_the_months_that_a_stranger_may_send_and_gets_the_others(
    new_owner: Begin, tamper: Tamper
) -> None:
    owner, _ = new_owner(categories=many_categories())
    begun = next(one for one in tamper.sent if one.url.path == "/v1/vaults")
    assert len(begun.content) <= 1 << 18
    ring = owner._rings.read().ring
    assert {(c.category, c.period) for c in ring.compartments.values()} == {
        (category, period) for category in many_categories() for period in ring.pages
    }
    assert len(ring.pages) == MONTHS_AHEAD + 1


def test_a_vault_whose_later_months_do_not_get_through_still_gives_its_kit(
    new_owner: Begin, tamper: Tamper, api: Api
) -> None:
    tamper.lose("PUT", "/ring")
    owner, kit = new_owner(categories=many_categories())
    tamper.lost.clear()
    assert Owner.unlock(Profile.load(owner.profile.folder), kit=kit, api=api).vault == owner.vault
    now = this_month(SystemClock())
    assert not owner.publish(many_categories(), [now])
    assert owner.publish(many_categories(), periods_from(now, MONTHS_AHEAD + 1))


def test_a_self_and_a_cohort_consent_at_once_take_one_reading_and_both_are_proven(owner: Owner, tamper: Tamper) -> None:
    owner.import_traces(purchases())
    wanted = [owner.terms_for(kind, [PURCHASE]) for kind in (ConsentKind.SELF, ConsentKind.COHORT)]
    tamper.sent.clear()
    given = owner.give_all(wanted)
    assert [one.version.terms for one in given] == wanted
    paths = [(request.method, request.url.path.rpartition("/")[2]) for request in tamper.sent]
    assert [paths.count(("GET", name)) for name in ("consents", "ring", "consistency")] == [1, 1, 1]
    assert paths.count(("POST", "consents")) == 2
    assert {one.current.terms.kind for one in owner.consents() if one.live} == {ConsentKind.SELF, ConsentKind.COHORT}
    assert all(owner.receipt(one.version.consent_id, 1)[0].version == one.version for one in given)


def test_the_kit_brings_the_vault_to_another_machine(
    new_owner: Begin, service: Service, api: Api, tmp_path: Path
) -> None:
    owner, kit = new_owner()
    owner.import_traces(purchases())
    moved = Owner.recover(tmp_path / "elsewhere", service.trust, kit, api=api)
    assert moved.vault == owner.vault
    flushed = moved.import_traces(purchases(2, month=2))
    assert (flushed.sent, flushed.waiting) == (2, 0)
    assert len(moved._rings.read().ring.head.devices) == 2


def test_another_vaults_kit_is_refused(new_owner: Begin, api: Api) -> None:
    owner, _ = new_owner()
    _, other = new_owner()
    with pytest.raises(VaultError, match="another vault"):
        Owner.unlock(owner.profile, kit=other, api=api)


def test_importing_publishes_months_seals_and_widens_the_self_consent(owner: Owner) -> None:
    given = owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version
    flushed = owner.import_traces(purchases(5) + purchases(5, month=3, year=2017))
    assert (flushed.sent, flushed.waiting) == (10, 0)
    (consent,) = owner.consents()
    assert consent.id == given.consent_id
    assert (consent.current.event, consent.current.version, consent.live) == (ConsentEvent.RENEWED, 2, True)
    assert consent.current.terms.data_from == "2017-03"
    assert owner.import_traces(purchases(5)).sent == 0  # each trace counts once
    assert owner.consents()[0].current.version == 2  # and nothing was missing


def test_handovers_hold_what_the_kind_of_consent_allows_and_nothing_more(
    owner: Owner, company: Company, tamper: Tamper, service: Service
) -> None:
    owner.import_traces(purchases())
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    kinds = [parse_handover(item).terms.kind for item in posted_handovers(tamper)]
    assert kinds == [KeyKind.RAW, KeyKind.IMPRINT]
    owner.give(owner.terms_for(ConsentKind.COHORT, [PURCHASE]))
    assert [parse_handover(item).terms.kind for item in posted_handovers(tamper)] == [KeyKind.RAW]
    terms = company_terms(company, owner, data_to=Period("2026-01"))
    owner.give_company(owner.read_request(company.sign_request(terms)))
    (handed,) = [parse_handover(item) for item in posted_handovers(tamper)]
    assert handed.terms.kind is KeyKind.IMPRINT
    ring = owner._rings.read().ring
    assert {ring.compartments[name].period for name in handed.terms.compartments} == {"2026-01"}


def test_a_company_gets_what_it_asked_for_or_less(owner: Owner, company: Company) -> None:
    owner.import_traces(purchases())
    asked = owner.read_request(company.sign_request(company_terms(company, owner)))
    assert asked.company == "Acme"
    narrowed = replace(asked.request.terms, quota_per_month=1)
    notice = owner.notice(narrowed, asked.company)
    assert "Acme" in notice
    assert "at most 1 answers a month" in notice
    given = owner.give_company(asked, narrowed).version
    renewed = owner.renew(given.consent_id).version
    assert (renewed.version, renewed.terms.quota_per_month) == (2, 1)
    less = replace(narrowed, questions=frozenset({QuestionKind.RECOMMEND}))
    assert owner.narrow(given.consent_id, less).version.terms == less
    with pytest.raises(ApiError):
        owner.narrow(given.consent_id, asked.request.terms)
    with pytest.raises(ApiError):
        owner.give_company(asked, replace(asked.request.terms, quota_per_month=10))
    assert owner.withdraw(given.consent_id).new_epoch == ()
    with pytest.raises(VaultError):
        owner.withdraw(given.consent_id)
    (consent,) = owner.consents()
    assert not consent.live


def test_withdrawing_the_last_self_consent_replaces_the_keys_of_the_future(owner: Owner) -> None:
    owner.import_traces(purchases())
    given = owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version
    before = f"{datetime.now(UTC):%Y-%m}"
    assert owner.withdraw(given.consent_id).new_epoch == (PURCHASE,)
    current = {period: page.current(PURCHASE) for period, page in owner._rings.read().ring.pages.items()}
    epochs = {period: key and key.epoch for period, key in current.items()}
    months = {before, f"{datetime.now(UTC):%Y-%m}"}
    assert any(epochs == {period: 2 if period >= this else 1 for period in epochs} for this in months)


def test_history_names_the_events(owner: Owner) -> None:
    owner.import_traces(purchases())
    owner.withdraw(owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version.consent_id)
    events = owner.history()
    assert [event["kind"] for event in events].count("consent") == 2
    indexes = [event["index"] for event in events]
    assert indexes == sorted(indexes)
    assert all(event["index"] > indexes[2] for event in owner.history(indexes[2]))


def test_refresh_and_twin_state(owner: Owner) -> None:
    with pytest.raises(UnknownConsent):
        owner.ask(NextChoice(PURCHASE, OWN_PURPOSE, 3))
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    job = owner.refresh()
    assert owner.twin()["job"]["job"] == job


def test_nothing_to_give(owner: Owner) -> None:
    with pytest.raises(NothingToGive):
        owner.give(owner.terms_for(ConsentKind.SELF, [Category("pd:Location")]))


# --- a server that lies -------------------------------------------------------------------------------------------
