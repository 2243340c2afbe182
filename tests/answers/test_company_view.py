"""Every byte that a company receives of an answer, compared over what happens to the person in between."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.answer_kit import NEXT, REFRESH_WINDOW, Service, answer_in, become, freeze
from tests.answers.test_guards import another_company, decision_in, offer
from tests.twin.worker_kit import OCTOBER, SEPTEMBER
from tests.vault_kit import MONTH
from vault.parties.people import VaultState
from vault.proof.bundle import Bundle
from vault.proof.decision_record import month_number
from vault.schema.consent import ConsentVersion
from vault.schema.question import Question
from vault.schema.terms import ConsentKind
from vault.seal.ids import new_id
from vault.seal.person import Profile

OFFER = offer("acme:1", "acme:2")

OF_THIS_QUESTION = {
    "question_id", "jws", "salt", "question", "record", "decision", "quota_left", "agent_quota_left", "consent_seq", "prev",
    "bound", "subject_salt",
}  # fmt: skip
"""What differs from one question to the next, whoever the person is; the test looks at the countable ones itself."""


def parts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from parts(item, f"{place}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from parts(item, place)
    else:
        yield place, json.dumps(value)


def opened(bundle: Bundle) -> Counter[tuple[str, str]]:
    """Return every field of every record and opening with how often it stands there; signatures and hashes are no facts."""
    bodies = [body for leaf in bundle.leaves for half in (leaf.public, leaf.personal) if half for body in [half.body]]
    found: Counter[tuple[str, str]] = Counter()
    for body in [*bundle.records.values(), *bodies]:
        _, brace, rest = body.partition(b"{")
        text = (brace + rest).decode("utf-8", "replace")
        found.update(parts(json.JSONDecoder().raw_decode(text)[0]) if brace else [("", body.hex())])
    return found


def facts(bundle: Bundle) -> Counter[tuple[str, str]]:
    return Counter({at: n for at, n in opened(bundle).items() if at[0].rpartition(".")[2] not in OF_THIS_QUESTION})


def counted(bundle: Bundle, name: str) -> set[int]:
    return {int(value) for (place, value) in opened(bundle) if place.rpartition(".")[2] == name}


def own_life(service: Service) -> None:
    """The owner asks the twin, another company asks it too, and both see the same person."""
    service.ask_own(service.give(ConsentKind.SELF, **REFRESH_WINDOW))
    asker, service.company = service.company, another_company(service)
    answer_in(service.ask(service.consent(), OFFER))
    service.withdraw(service.consent())
    service.company = asker


def freeze_for_a_while(service: Service) -> None:
    freeze(service)
    freeze(service, VaultState.ACTIVE)


CHANGES: dict[str, Callable[[Service], None]] = {
    "nothing": lambda service: None,
    "a minor whose guardian agreed": lambda service: become(service, Profile(minor=True, guardian_ok=True)),
    "a guardian of an adult": lambda service: become(service, Profile(guardian_ok=True)),
    "dead, and this purpose allowed": lambda service: become(service, Profile(deceased=True)),
    "frozen for a while": freeze_for_a_while,
    "asked by others": own_life,
}


@pytest.mark.parametrize("question", [NEXT, OFFER], ids=["next choice", "recommend"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_field_of_an_answer_changes_with_the_person(quick: Service, change: str, question: Question) -> None:
    consent = quick.consent(quota_per_month=50, post_mortem=frozenset({question.purpose}))
    _, before = answer_in(quick.ask(consent, question))
    CHANGES[change](quick)
    _, after = answer_in(quick.ask(consent, question))
    assert len(facts(before)) > 50
    assert facts(after) == facts(before)
    for name, step in (("quota_left", -1), ("agent_quota_left", -1), ("consent_seq", 1)):
        assert max(counted(after, name)) == max(counted(before, name)) + step


def refused(service: Service, consent: ConsentVersion | bytes, question: Question) -> tuple[int, Any, list[str]]:
    response = service.ask(consent, question)
    told = response.json()
    told["instance"] = re.sub(r"[^/]+$", "", told["instance"])
    return response.status_code, told, sorted(name for name in response.headers if name != "date")


def test_no_byte_of_a_refusal_says_what_it_was_for(quick: Service) -> None:
    consent = quick.consent(quota_per_month=50)
    seen = []
    for profile in (Profile(minor=True), Profile(deceased=True), Profile(minor=True, guardian_ok=True, deceased=True)):
        become(quick, profile)
        seen.append(refused(quick, consent, NEXT))
    become(quick, Profile())
    freeze(quick)
    seen.append(refused(quick, consent, OFFER))
    asker, quick.company = quick.company, another_company(quick)
    seen.append(refused(quick, consent, NEXT))  # not its consent
    quick.company = asker
    seen.append(refused(quick, new_id(), NEXT))  # nobody's
    freeze(quick, VaultState.ACTIVE)
    answer_in(quick.ask(consent, NEXT))
    assert all(one == seen[0] for one in seen)


def test_a_question_reads_the_months_of_its_consent(quick: Service) -> None:
    for first, last in ((SEPTEMBER, MONTH), (SEPTEMBER, SEPTEMBER), (OCTOBER, MONTH)):
        _, bundle = answer_in(quick.ask(quick.consent(data_from=first, data_to=last)))
        decision = decision_in(bundle)
        (consent,) = (one["attrs"] for one in decision["entities"] if one["uid"]["type"] == "Vault::Consent")
        for month, period in (("data_from", first), ("data_to", last)):
            assert decision["context"][month] == consent[month] == month_number(period)
