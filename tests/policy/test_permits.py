"""Who is told what, and that a permit exists only for what the rules allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.consent_kit import NOW, PURPOSE, World
from tests.policy_kit import (
    RULES,
    UNMET,
    ask,
    ask_permit,
    company_caller,
    own_ask,
    read,
    refresh_permit,
    train_permit,
    use,
)
from tests.vault_kit import begin
from vault.consent import changes, events
from vault.consent.exposure import NOTHING, Exposure
from vault.db import Database
from vault.encoding import parse_json
from vault.parties import people
from vault.parties.caller import OwnerCaller
from vault.parties.companies import CompanyId, CompanyStatus
from vault.parties.people import VaultState
from vault.policy.permits import (
    CompanySuspended,
    ConsentNotActive,
    Forbidden,
    NotCovered,
    OutsideWindow,
    QuotaSpent,
    decide_ask,
    decide_train,
    verify_grantee,
)
from vault.policy.records import Ask
from vault.proof.decision import evaluate
from vault.proof.decision_record import parse_decision
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentEvent
from vault.schema.question import Candidate, Recommend
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.ids import ConsentId
from vault.seal.person import Profile


@pytest.fixture
def world(sqlite_database: Database, shortkeys: Database) -> World:
    return World(sqlite_database, shortkeys)


def test_a_permit_carries_a_record_that_replays_to_the_same_decision(world: World) -> None:
    version = world.give()
    permit = ask_permit(world, version)
    assert (permit.consent_id, permit.version) == (version.consent_id, 1)
    assert (permit.vault_id, permit.subject) == (world.owner.vault, version.subject)
    record = parse_decision(parse_json(permit.decision))
    assert record.policy_set_sha256 == permit.policy_set_sha256 == RULES.sha256
    decision = evaluate(record, RULES)
    assert (decision.allowed, decision.reasons) == (True, permit.rules)
    assert world.owner.vault not in permit.decision
    with world.database.transaction() as session:
        assert events.spend(session, permit, NOW).quota_left == 4


def test_the_owner_asks_under_the_self_consent_only(world: World) -> None:
    own, company = world.give(ConsentKind.SELF), world.give()
    assert decide_ask(own_ask(world, own), RULES).rules == ("permit-ask-owner",)
    stranger = begin(world.database, world.shortkeys)[0]
    for facts in (own_ask(world, company), ask(world, own), replace(own_ask(world, own), caller=stranger.caller)):
        with pytest.raises(Forbidden) as refused:
            decide_ask(facts, RULES)
        assert refused.value.slug == "not-permitted"


def _recommend(facts: Ask, codes: str = "abc", met: Exposure = UNMET) -> Ask:
    candidates = tuple(Candidate(code, "") for code in codes)
    question = Recommend(facts.question.category, facts.question.purpose, candidates, min(2, len(codes)))
    return replace(facts, question=question, exposure=met)


def _ended(world: World, facts: Ask) -> Ask:
    version = facts.consent.current
    ended = replace(version, version=2, consent_seq=2, prev=facts.consent.sha256, event=ConsentEvent.WITHDRAWN)
    return replace(facts, consent=replace(facts.consent, current=ended, live=False))


Bend = Callable[[World, Ask], Ask]
VISIBLE: dict[str, tuple[type[Forbidden], Bend]] = {
    "consent-not-active": (ConsentNotActive, _ended),
    "outside-window": (OutsideWindow, lambda w, f: replace(f, now=NOW + timedelta(days=31))),
    "before its window": (OutsideWindow, lambda w, f: replace(f, now=NOW - timedelta(seconds=1))),
    "quota-spent": (QuotaSpent, lambda w, f: replace(f, consent=_spent(f))),
    "company-suspended": (
        CompanySuspended,
        lambda w, f: replace(f, caller=company_caller(w, status=CompanyStatus.SUSPENDED)),
    ),
    "agent": (NotCovered, lambda w, f: replace(f, caller=company_caller(w, agent=True))),
    "agent-quota-spent": (
        QuotaSpent,
        lambda w, f: replace(_agents_allowed(f, used=25), caller=company_caller(w, agent=True)),
    ),
    "purpose": (NotCovered, lambda w, f: _asked(f, purpose=Purpose("dpv:Marketing"))),
    "category": (NotCovered, lambda w, f: _asked(f, category=Category("pd:Health"))),
    "reveals": (NotCovered, lambda w, f: replace(f, reveals=frozenset({Category("pd:Health")}))),
    "bearer": (NotCovered, lambda w, f: replace(f, caller=company_caller(w, sender_constrained=False))),
}
HIDDEN: dict[str, Bend] = {
    "minor": lambda w, f: replace(f, person=replace(f.person, profile=Profile(minor=True))),
    "deceased": lambda w, f: replace(f, person=replace(f.person, profile=Profile(deceased=True))),
    "frozen": lambda w, f: replace(f, person=replace(f.person, state=VaultState.FROZEN)),
    "stimuli": lambda w, f: _recommend(f, met=replace(UNMET, stimuli=999)),
    "candidates": lambda w, f: _recommend(f, met=replace(UNMET, ranked="01234567" * 1998)),
    "variation": lambda w, f: _recommend(f, codes="a", met=replace(UNMET, variations=200)),
    "model": lambda w, f: replace(f, manifest=replace(f.manifest, model_sha256=b"x" * 32)),
    "another consent's token": lambda w, f: replace(f, caller=company_caller(w, grant_id=ConsentId(b"x" * 16))),
    "another company": lambda w, f: replace(f, caller=company_caller(w, company_id=CompanyId("B" * 22))),
    "another vault's person": lambda w, f: replace(f, person=replace(f.person, vault_id=b"x" * 16)),
}


def _spent(facts: Ask) -> Any:
    return replace(facts.consent, quota_month="2026-11", quota_used=facts.consent.current.terms.quota_per_month)


def _agents_allowed(facts: Ask, used: int) -> Ask:
    terms = replace(facts.consent.current.terms, agent_allowed=True, quota_per_month=50)
    current = replace(facts.consent.current, terms=terms)
    return replace(facts, consent=replace(facts.consent, current=current, quota_month="2026-11", quota_used=used))


def _asked(facts: Ask, **changed: Any) -> Ask:
    return replace(facts, question=replace(facts.question, **changed))


@pytest.mark.parametrize(("refusal", "bend"), VISIBLE.values(), ids=VISIBLE)
def test_a_company_is_told_facts_about_itself_and_its_consent(
    world: World, refusal: type[Forbidden], bend: Bend
) -> None:
    facts = bend(world, ask(world, world.give()))
    with pytest.raises(refusal) as refused:
        decide_ask(facts, RULES)
    assert type(refused.value) is refusal
    assert refused.value.rules
    assert not evaluate(parse_decision(parse_json(refused.value.record)), RULES).allowed


@pytest.mark.parametrize("bend", HIDDEN.values(), ids=HIDDEN)
def test_anything_about_the_person_is_one_and_the_same_refusal(world: World, bend: Bend) -> None:
    facts = bend(world, ask(world, world.give()))
    with pytest.raises(Forbidden) as refused:
        decide_ask(facts, RULES)
    assert type(refused.value) is Forbidden
    assert (refused.value.slug, refused.value.status) == ("not-permitted", 403)
    assert refused.value.detail == "This is not permitted."


def test_what_a_company_is_told_does_not_change_with_the_person(world: World) -> None:
    facts = replace(ask(world, world.give()), now=NOW + timedelta(days=31))
    told = []
    for person in (facts.person, replace(facts.person, profile=Profile(minor=True), state=VaultState.FROZEN)):
        with pytest.raises(Forbidden) as refused:
            decide_ask(replace(facts, person=person), RULES)
        told.append((type(refused.value), refused.value.detail))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "profile", [Profile(minor=True, guardian_ok=True), Profile(guardian_ok=True), Profile(deceased=True)]
)
def test_the_record_of_what_is_allowed_does_not_change_with_the_person(world: World, profile: Profile) -> None:
    facts = ask(world, world.give(post_mortem=frozenset({PURPOSE})))
    other = replace(facts, person=replace(facts.person, profile=profile))
    assert decide_ask(other, RULES).decision == decide_ask(facts, RULES).decision


def test_the_record_of_a_refusal_says_what_it_was_for(world: World) -> None:
    facts = ask(world, world.give())
    for profile, said in (
        (Profile(minor=True), ["minor", "minor-without-guardian"]),
        (Profile(minor=True, guardian_ok=True, deceased=True), ["minor", "deceased"]),
    ):
        with pytest.raises(Forbidden) as refused:
            decide_ask(replace(facts, person=replace(facts.person, profile=profile)), RULES)
        (person,) = (
            one for one in parse_decision(parse_json(refused.value.record)).entities if one.uid.type == "Vault::Person"
        )
        assert person.attrs == {"profile": said}


def test_an_unknown_consent_looks_like_somebody_elses(world: World) -> None:
    consent, caller = read(world, world.give()), company_caller(world)
    assert verify_grantee(consent, caller) is consent
    other = company_caller(world, company_id=CompanyId("B" * 22))
    told = []
    for named, who in ((None, caller), (consent, other), (replace(consent, live=False), other)):
        with pytest.raises(Forbidden) as refused:
            verify_grantee(named, who)
        told.append((refused.value.slug, refused.value.detail, refused.value.record, refused.value.rules))
    assert len(set(told)) == 1


def test_a_spent_quota_of_another_company_is_not_told(world: World) -> None:
    facts = ask(world, world.give())
    facts = replace(facts, consent=_spent(facts), caller=company_caller(world, company_id=CompanyId("B" * 22)))
    with pytest.raises(Forbidden) as refused:
        decide_ask(facts, RULES)
    assert type(refused.value) is Forbidden


def test_a_token_for_this_consent_asks(world: World) -> None:
    version = world.give()
    caller = company_caller(world, grant_id=ConsentId(version.consent_id))
    assert decide_ask(ask(world, version, caller=caller), RULES).rules == ("permit-ask-company",)


def test_a_company_shows_what_it_recommends_and_the_owner_shows_nothing(world: World) -> None:
    own, company = world.give(ConsentKind.SELF), world.give()
    met = replace(UNMET, stimuli=998)
    exposed = decide_ask(_recommend(ask(world, company), met=met), RULES).exposure
    assert (exposed.stimuli, exposed.candidates, exposed.variations) == (2, 3, 0)
    assert decide_ask(_recommend(own_ask(world, own), met=replace(UNMET, stimuli=1000)), RULES).exposure == NOTHING
    assert decide_ask(ask(world, company, exposure=replace(UNMET, stimuli=1000)), RULES).exposure == NOTHING


def test_an_agent_has_a_smaller_quota_than_people(world: World) -> None:
    facts, agent = _agents_allowed(ask(world, world.give()), used=24), company_caller(world, agent=True)
    assert decide_ask(replace(facts, caller=agent), RULES).agent
    spent = _agents_allowed(facts, used=25)
    assert not decide_ask(spent, RULES).agent
    with pytest.raises(QuotaSpent) as refused:
        decide_ask(replace(spent, caller=agent), RULES)
    assert refused.value.rules == ("agent-quota-spent",)
    earlier = replace(spent, consent=replace(spent.consent, quota_month="2026-10"))
    assert decide_ask(replace(earlier, caller=agent), RULES).agent


@pytest.mark.parametrize("kind", ConsentKind)
def test_each_consent_opens_traces_for_its_own_kind_of_work(world: World, kind: ConsentKind) -> None:
    version = world.give(kind)
    for permit, allowed in ((refresh_permit, ConsentKind.SELF), (train_permit, ConsentKind.COHORT)):
        if kind is allowed:
            assert permit(world, version).categories == version.terms.categories
        else:
            with pytest.raises(Forbidden):
                permit(world, version)


@pytest.mark.parametrize(
    "changed",
    [
        {"categories": frozenset({Category("pd:Health")})},
        {"categories": frozenset()},
        {"data_to": Period("2026-12")},
        {"data_from": Period("2026-10")},
        {"purpose": Purpose("dpv:Marketing")},
        {"now": NOW + timedelta(days=31)},
    ],
)
def test_training_stays_inside_the_consent(world: World, changed: dict[str, Any]) -> None:
    version = world.give(ConsentKind.COHORT)
    with pytest.raises(Forbidden):
        decide_train(use(world, version, **changed), RULES)


def test_a_permit_dies_with_the_version_it_was_decided_on(world: World) -> None:
    version = world.give()
    permit = ask_permit(world, version)
    world.amend(world.next(version, ConsentEvent.NARROWED))
    with pytest.raises(events.NotSpent), world.database.transaction() as session:
        events.spend(session, permit, NOW)


def test_a_freeze_refuses_the_owner_too(world: World) -> None:
    own = world.give(ConsentKind.SELF)
    with world.database.transaction() as session:
        people.freeze(session, world.owner.vault, VaultState.FROZEN, world.owner.genesis, now=NOW)
    with pytest.raises(Forbidden) as refused:
        decide_ask(own_ask(world, own), RULES)
    assert refused.value.rules == ("vault-frozen",)
    assert isinstance(OwnerCaller(world.owner.vault), OwnerCaller)


def test_an_expired_consent_is_outside_its_window_and_over(world: World) -> None:
    version = world.give()
    later = NOW + timedelta(days=31)
    with world.database.transaction() as session:
        consent_id = ConsentId(version.consent_id)
        changes.end(session, consent_id, ConsentEvent.EXPIRED, service=world.service, now=later)
    with pytest.raises(ConsentNotActive):
        decide_ask(ask(world, version, now=later), RULES)
