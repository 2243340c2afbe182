"""Who the person is, who asks and how often: refused end to end, and told to nobody but the owner."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy

from tests.answer_kit import NEXT, OFFER, REFRESH_WINDOW, RETAIL, Service, answer_in, become, freeze, slug_of
from tests.answers.test_ask import counted, events
from tests.company_kit import CompanyKit
from tests.consent_kit import PURPOSE
from tests.vault_kit import PURCHASE
from tests.waiting import together, until
from vault.answers import ask as asking
from vault.answers import floods
from vault.consent import exposure
from vault.encoding import b64u
from vault.imprint import reveals
from vault.imprint.words import words_digest
from vault.parties import companies
from vault.proof.bundle import Bundle
from vault.schema.category import Purpose
from vault.schema.consent import ConsentVersion
from vault.schema.question import Candidate, Recommend
from vault.schema.terms import ConsentKind
from vault.seal.ids import new_id
from vault.seal.person import Profile

NOT_PERMITTED = {"type": "/problems/not-permitted", "title": "Not permitted", "status": 403, "detail": "This is not permitted."}  # fmt: skip


def another_company(service: Service, **changed: Any) -> CompanyKit:
    other = CompanyKit(name="Other")
    with service.database.transaction() as session:
        companies.register(session, other.record(service.clock.at, **changed), now=service.clock.at)
    return other


def offer(*codes: str, top_n: int = 1) -> Recommend:
    return Recommend(PURCHASE, PURPOSE, tuple(Candidate(code, "") for code in codes), top_n)


def refused_for(
    service: Service, consent: ConsentVersion, rule: str, question: Any = NEXT, question_id: bytes | None = None
) -> None:
    """Check that the company learns nothing and the owner's log says why."""
    response = service.ask(consent, question, question_id)
    told = response.json()
    assert told.pop("instance").startswith("/requests/")
    assert (response.status_code, told) == (403, NOT_PERMITTED)
    assert events(service, "denial")[-1]["rules"] == [rule]


@pytest.mark.parametrize(
    ("profile", "purpose", "rule"),
    [
        (Profile(minor=True), PURPOSE, "minor-without-guardian"),
        (Profile(deceased=True), PURPOSE, "deceased"),
        (Profile(minor=True, guardian_ok=True), Purpose("x:Persuasion"), "influence-of-minor"),
    ],
)
def test_no_answer_is_repeated_that_the_person_s_profile_forbids_by_now(
    quick: Service, profile: Profile, purpose: Purpose, rule: str
) -> None:
    consent = quick.consent(purposes=frozenset({PURPOSE, purpose}), influence_opt_in=True)
    question, question_id = replace(NEXT, purpose=purpose), new_id()
    answer_in(quick.ask(consent, question, question_id))
    become(quick, profile)
    refused_for(quick, consent, rule, question, question_id)


@pytest.mark.parametrize(
    "profile", [Profile(guardian_ok=True), Profile(minor=True, guardian_ok=True), Profile(deceased=True)]
)
def test_an_answer_is_repeated_whatever_profile_allows_it(quick: Service, profile: Profile) -> None:
    """Though its quota is spent: whoever were decided about anew could be told by that."""
    consent, question_id = quick.consent(quota_per_month=1, post_mortem=frozenset({PURPOSE})), new_id()
    first, _ = answer_in(quick.ask(consent, NEXT, question_id))
    become(quick, profile)
    assert answer_in(quick.ask(consent, NEXT, question_id))[0] == first


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (freeze, "vault-frozen"),
        (lambda service: become(service, Profile(minor=True)), "minor-without-guardian"),
    ],
)
def test_a_refusal_for_what_the_person_became_meanwhile_names_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch, change: Callable[[Service], None], rule: str
) -> None:
    """The rules allowed it, the transaction did not: of a change of the consent the company may know, of this not."""
    consent = service.consent()
    changed_while_decided(service, monkeypatch, change)
    refused_for(service, consent, rule)


def test_what_is_allowed_as_before_is_answered_whatever_the_person_became_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = service.consent()
    changed_while_decided(service, monkeypatch, lambda one: become(one, Profile(minor=True, guardian_ok=True)))
    answer_in(service.ask(consent))
    assert events(service, "denial") == []


def changed_while_decided(service: Service, monkeypatch: pytest.MonkeyPatch, change: Callable[[Service], None]) -> None:
    """Let something change once, after the rules decided and before the answer is committed."""
    commit = asking._commit

    def change_first(*arguments: Any) -> Any:
        monkeypatch.setattr(asking, "_commit", commit)
        change(service)
        return commit(*arguments)

    monkeypatch.setattr(asking, "_commit", change_first)


def test_denials_that_queue_up_hold_up_no_suspension(crowded: Service) -> None:
    """PostgreSQL lets whoever shares a row pass by who waits for it alone: it would wait as long as they come."""
    consent, refused = crowded.consent(), list[Any]()
    freeze(crowded)
    waiting = threading.Thread(target=lambda: refused.append(crowded.ask(consent)))
    with crowded.database.transaction() as session:
        floods.is_flood(session, crowded.company.company_id, crowded.clock.at)
        waiting.start()
        until(lambda: counts_wait(crowded), "a denial waits for the one before it")
        with crowded.database.transaction() as another:
            free = another.execute(sqlalchemy.text("SELECT company_id FROM company FOR UPDATE SKIP LOCKED")).all()
    waiting.join()
    assert len(free) == 1, "a suspension would wait for a denial that waits itself"
    assert refused[0].status_code == 403


def counts_wait(service: Service) -> int:
    """Return how many wait at a company's count of denials."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%denial_count%'"
    with service.database.snapshot() as session:
        return int(session.execute(sqlalchemy.text(waits)).scalar_one())


@pytest.mark.parametrize(
    ("profile", "rule"),
    [
        (Profile(minor=True), "minor-without-guardian"),
        (Profile(deceased=True), "deceased"),
        (Profile(minor=True, guardian_ok=True, deceased=True), "deceased"),
    ],
)
def test_a_minor_alone_and_the_dead_are_not_asked_about(service: Service, profile: Profile, rule: str) -> None:
    consent, own = service.consent(), service.give(ConsentKind.SELF, **REFRESH_WINDOW)
    answer_in(service.ask(consent))
    become(service, profile)
    refused_for(service, consent, rule)
    assert slug_of(service.ask_own(own)) == "not-permitted"
    become(service, Profile(guardian_ok=True))
    answer_in(service.ask(consent))


def test_a_guardian_or_a_rule_for_after_death_lets_ask(quick: Service) -> None:
    consent, told = quick.consent(post_mortem=frozenset({PURPOSE})), []
    for profile in (Profile(), Profile(minor=True, guardian_ok=True), Profile(deceased=True)):
        become(quick, profile)
        told.append(decision_in(answer_in(quick.ask(consent))[1])["entities"])
    assert told == [told[0]] * 3, "the company that asks can tell them apart"


def test_a_frozen_vault_is_not_asked_about(service: Service) -> None:
    consent = service.consent()
    freeze(service)
    refused_for(service, consent, "vault-frozen")


def test_an_agent_asks_only_where_allowed_and_less(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("consents", "events"):
        monkeypatch.setattr(f"vault.consent.{module}.AGENT_ANSWERS_PER_MONTH", 2)
    service.company = another_company(service, agent=1)
    response = service.ask(service.consent(agent_allowed=False))
    assert slug_of(response) == "not-covered"
    assert response.json()["detail"].startswith("The consent does not allow software agents to ask.")
    consent = service.consent(agent_allowed=True, quota_per_month=50)
    for _ in range(2):
        answer_in(service.ask(consent))
    response = service.ask(consent)
    assert (response.status_code, slug_of(response)) == (429, "quota-spent")
    assert events(service, "denial")[-1]["rules"] == ["agent-quota-spent"]
    assert [answer["quota_left"] for answer in events(service, "answer")] == [1, 0]


def test_what_one_company_showed_counts_for_all(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "STIMULI_PER_MONTH", 5)
    first = service.consent()
    own = service.give(ConsentKind.SELF, **REFRESH_WINDOW)
    answer_in(service.ask(first, OFFER))
    answer_in(service.ask_own(own, OFFER))  # the owner's own questions show nobody anything
    service.company = another_company(service)
    second = service.consent()
    answer_in(service.ask(second, offer("x:1", "x:2", "x:3", top_n=3)))
    refused_for(service, second, "stimuli-spent", offer("x:4", "x:5"))
    answer_in(service.ask(second, NEXT))


def test_an_answer_says_nothing_of_what_others_asked(quick: Service) -> None:
    question = offer("x:1", "x:2", "x:3")
    first = quick.consent()
    told = [decision_in(answer_in(quick.ask(first, question))[1])["context"]]
    quick.company = another_company(quick)
    told.append(decision_in(answer_in(quick.ask(quick.consent(), question))[1])["context"])
    for context in told:
        context.pop("consent")
    assert told[0] == told[1]


def decision_in(bundle: Bundle) -> Any:
    """Return the record of the decision in an answer's bundle."""
    (found,) = (json.loads(r) for r in bundle.records.values() if r.startswith(b"{") and b'"Vault::Consent"' in r)
    return found


def test_candidates_are_counted_over_all_companies(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "CANDIDATES_PER_MONTH", 4)
    first = service.consent()
    answer_in(service.ask(first, offer("x:1", "x:2", "x:3")))
    service.company = another_company(service)
    second = service.consent()
    refused_for(service, second, "candidates-spent", offer("x:4", "x:5"))
    answer_in(service.ask(second, offer("x:1", "x:2", "x:3", "x:4")))


@pytest.mark.parametrize(
    "search",
    [
        [offer(f"x:{n}") for n in range(4)],  # one candidate after the other
        [offer("x:1", "x:2", "x:3", f"y:{n}") for n in range(5)],  # one exchanged each time
        [offer("x:1", "x:2")] * 5,
        [Recommend(PURCHASE, PURPOSE, (Candidate("x:1", f"wording {n}"), Candidate("x:2", "")), 1) for n in range(5)],
        [offer(f"x:{n}", "known") for n in range(4)],
    ],
    ids=["one by one", "one exchanged", "repeated", "reworded", "beside a known one"],
)
def test_nobody_searches_for_what_moves_one_person(
    quick: Service, monkeypatch: pytest.MonkeyPatch, search: list[Recommend]
) -> None:
    monkeypatch.setattr(exposure, "VARIATIONS_PER_MONTH", 3)
    consent = quick.consent()
    if search[0].candidates[-1].code == "known":
        answer_in(quick.ask(consent, offer("known", "other")))
    *allowed, refused = search
    for question in allowed:
        answer_in(quick.ask(consent, question))
    refused_for(quick, consent, "variations-spent", refused)


def test_a_month_that_others_fill_meanwhile_names_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules allowed it, the transaction did not: it looks like any refusal about the person."""
    consent = service.consent()
    honest = exposure.read
    monkeypatch.setattr(exposure, "VARIATIONS_PER_MONTH", 1)
    answer_in(service.ask(consent, offer("x:1")))
    monkeypatch.setattr(
        exposure,
        "read",
        lambda session, vault_id, now, key: replace(honest(session, vault_id, now, key), variations=0),
    )
    refused_for(service, consent, "not-spent", offer("x:1"))
    assert counted(service) == (1, 1)


def test_askers_at_once_pass_no_limit_over_all_companies(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "VARIATIONS_PER_MONTH", 3)
    consent = service.consent(quota_per_month=50)
    answers = together(*(lambda n=n: service.ask(consent, offer("x:1", "x:2", "x:3", f"y:{n}")) for n in range(8)))
    given = [response for response in answers if response.status_code == 200]
    assert len(given) == 1 + 3
    assert {slug_of(response) for response in answers if response.status_code != 200} == {"not-permitted"}


def test_what_an_answer_could_reveal_is_in_its_decision(quick: Service) -> None:
    consent = quick.consent()
    assert slug_of(quick.ask(consent, offer("acme:1", "pharmacy"))) == "not-covered"
    denial = events(quick, "denial")[-1]
    assert denial["rules"] == ["special-health", "special-prescription"]
    answer, bundle = answer_in(quick.ask(consent))
    (logged,) = events(quick, "answer")
    assert logged["public"]["classifier"] == reveals.VERSION
    assert logged["public"]["words"] == b64u(words_digest(RETAIL))
    assert answer.consent_id == consent.consent_id
    assert decision_in(bundle)["context"]["reveals"] == []
