"""Decision records from facts: what a rule may read about one ask, refresh or training, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeAlias, assert_never

from vault.clock import unix_s
from vault.consent.consents import Consent
from vault.consent.exposure import NOTHING, Addition, Exposure
from vault.encoding import JsonObject, b64u
from vault.parties.caller import CompanyCaller, OwnerCaller
from vault.parties.people import Person, VaultState
from vault.proof.certificate import Manifest, Required, verify_certificate
from vault.proof.decision_record import Action, DecisionRecord, Entity, Uid, consent_entity, month_number
from vault.proof.errors import InvalidProof
from vault.schema.category import Category, Purpose
from vault.schema.question import NextChoice, Propensity, Question, Recommend
from vault.schema.trace import Period

WORKER: Final = Uid("Vault::Service", "worker")
_PERSON: Final = "Vault::Person"


@dataclass(frozen=True, slots=True)
class Ask:
    """All facts of one question to one twin.

    Args:
        consent: As just read.
        person: Whose twin, as just read.
        caller: Who asks.
        question: What is asked.
        reveals: Special categories that the answer could reveal, whatever is read.
        manifest: Of the model that would answer.
        exposure: What the person met so far this month.
        now: The current time.
        required: What a model must show.
    """

    consent: Consent
    person: Person
    caller: CompanyCaller | OwnerCaller
    question: Question
    reveals: frozenset[Category]
    manifest: Manifest
    exposure: Exposure
    now: datetime
    required: Required = field(default_factory=Required)

    def addition(self) -> Addition:
        """Return what an answer adds to the person's exposure: what a company ranks and recommends, it shows."""
        if isinstance(self.caller, OwnerCaller):
            return NOTHING
        match self.question:
            case NextChoice() | Propensity():
                return NOTHING
            case Recommend():
                codes = (candidate.code for candidate in self.question.candidates)
                return self.exposure.ranking(self.question.category, codes, self.question.top_n)
            case _:
                assert_never(self.question)


@dataclass(frozen=True, slots=True)
class Use:
    """All facts of opening one person's traces, to make imprint rows or to train.

    Args:
        consent: As just read.
        person: Whose traces, as just read.
        purpose: Why.
        categories: Which categories are opened.
        data_from: First month opened.
        data_to: Last month opened.
        now: The current time.
    """

    consent: Consent
    person: Person
    purpose: Purpose
    categories: frozenset[Category]
    data_from: Period
    data_to: Period
    now: datetime


Facts: TypeAlias = Ask | Use


def ask_record(facts: Ask, addition: Addition, policy_set_sha256: bytes) -> DecisionRecord:
    """Return what the decision about a question depends on.

    Args:
        facts: As just read.
        addition: What the answer adds to the person's exposure, from the same facts.
        policy_set_sha256: Address of the set that will decide.
    """
    twin, snapshot = _twin(facts)
    terms, question, caller = facts.consent.current.terms, facts.question, facts.caller
    model = _model(facts.manifest, facts.now.replace(second=0, microsecond=0), facts.required)
    context: JsonObject = {
        **_use(
            facts,
            purpose=question.purpose,
            categories=frozenset({question.category}),
            reveals=facts.reveals,
            data=(terms.data_from, terms.data_to),
        ),
        "question": question.kind.value,
        "quota_left": facts.consent.quota_left(facts.now),
        "agent_quota_left": facts.consent.agent_quota_left(facts.now),
        "exceeds": [*facts.exposure.exceeded_by(addition)],
        "model": model.uid.reference,
    }
    match caller:
        case OwnerCaller():
            # A signed-in owner proved the key itself; the session never leaves the owner's client.
            principal = Uid(_PERSON, twin.id)
            context |= {"agent": 0, "sender_constrained": 1}
            entities = (*snapshot, model)
        case CompanyCaller():
            principal = Uid("Vault::Company", caller.company_id)
            context |= {"agent": int(caller.agent), "sender_constrained": int(caller.sender_constrained)}
            entities = (*snapshot, model, Entity(principal, {"status": caller.status.value}))
        case _:
            assert_never(caller)
    return DecisionRecord(Action.ASK, principal, twin, context, entities, policy_set_sha256)


def use_record(facts: Use, action: Action, policy_set_sha256: bytes) -> DecisionRecord:
    """Return what the decision about opening traces depends on.

    Args:
        facts: As just read.
        action: REFRESH or TRAIN.
        policy_set_sha256: Address of the set that will decide.
    """
    twin, snapshot = _twin(facts)
    context = _use(
        facts,
        purpose=facts.purpose,
        categories=facts.categories,
        reveals=frozenset(),
        data=(facts.data_from, facts.data_to),
    )
    entities = (*snapshot, Entity(WORKER, {}))
    return DecisionRecord(action, WORKER, twin, context, entities, policy_set_sha256)


def without_profile(allowed: DecisionRecord) -> DecisionRecord:
    """Return the record of what was allowed as it is kept and shown: nothing in it is known of the person alone.

    A company reads the record of its answer. It is decided alike: a policy set in which a profile does
    more than forbid is none.
    """
    entities = [Entity(one.uid, {"profile": []}) if one.uid.type == _PERSON else one for one in allowed.entities]
    return replace(allowed, entities=tuple(entities))


def _twin(facts: Facts) -> tuple[Uid, tuple[Entity, ...]]:
    """Return the twin's name with the snapshots of consent, person and twin; all go by the pairwise pseudonym."""
    subject = b64u(facts.consent.subject)
    person, twin = Uid(_PERSON, subject), Uid("Vault::Twin", subject)
    profile = facts.person.profile
    said = {
        "minor": profile.minor,
        "minor-without-guardian": profile.minor and not profile.guardian_ok,
        "deceased": profile.deceased,
    }
    frozen = int(facts.person.state is not VaultState.ACTIVE)
    return twin, (
        consent_entity(facts.consent.current, twin),
        Entity(person, {"profile": [fact for fact, holds in said.items() if holds]}),
        Entity(twin, {"owner": person.reference, "frozen": frozen}),
    )


def _use(
    facts: Facts,
    *,
    purpose: Purpose,
    categories: frozenset[Category],
    reveals: frozenset[Category],
    data: tuple[Period, Period],
) -> JsonObject:
    return {
        "consent": Uid("Vault::Consent", b64u(facts.consent.consent_id)).reference,
        "now": unix_s(facts.now),
        "purpose": purpose,
        "categories": [*sorted(categories)],
        "reveals": [*sorted(reveals)],
        "data_from": month_number(data[0]),
        "data_to": month_number(data[1]),
    }


# Recomputing epsilon takes milliseconds and depends on the time only through the model's age.
@lru_cache(maxsize=64)
def _model(manifest: Manifest, minute: datetime, required: Required) -> Entity:
    try:
        verify_certificate(manifest, minute, required)
        certificate = "valid"
    except InvalidProof:
        certificate = "invalid"
    return Entity(Uid("Vault::Model", b64u(manifest.digest)), {"certificate": certificate})
