"""The decision and the permit: the only place where one is made, so that holding one proves the other.

Source: DESIGN section 5; GDPR articles 6, 7 and 9 for what the rules ask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from vault.consent.consents import Consent
from vault.consent.exposure import NOTHING, Addition
from vault.encoding import dump_json
from vault.errors import VaultError
from vault.parties.caller import CompanyCaller, OwnerCaller
from vault.policy.records import Ask, Facts, Use, ask_record, use_record, without_profile
from vault.proof.decision import NOT_PERMITTED, Decision, PolicySet, evaluate
from vault.proof.decision_record import Action, DecisionRecord, dump_decision
from vault.schema.category import Category
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.ids import ConsentId, SubjectId, VaultId
from vault.seal.person import Profile


class Forbidden(VaultError):
    """An action that the rules in force do not allow.

    Args:
        detail: A sentence for whoever asked; never anything about the person.
        rules: Ids of the rules that decided, for the owner and the log.
        record: The decision record's bytes, for the log; empty if there was nothing to decide on.
    """

    slug: ClassVar[str] = NOT_PERMITTED
    title: ClassVar[str] = "Not permitted"
    status: ClassVar[int] = 403

    def __init__(self, detail: str, *, rules: tuple[str, ...] = (), record: bytes = b"") -> None:
        super().__init__(detail)
        self.rules = rules
        self.record = record


class ConsentNotActive(Forbidden):
    """The consent was withdrawn, revoked, expired or invalidated."""

    slug = "consent-not-active"
    title = "Consent is not active"


class OutsideWindow(Forbidden):
    """The consent is not valid at this time."""

    slug = "outside-window"
    title = "Outside the consent's window"


class QuotaSpent(Forbidden):
    """The consent's quota of this month is spent."""

    slug = "quota-spent"
    title = "Quota is spent"
    status = 429


class CompanySuspended(Forbidden):
    """The company is not active."""

    slug = "company-suspended"
    title = "Company is suspended"


class NotCovered(Forbidden):
    """The consent does not cover what is asked, or not from this caller."""

    slug = "not-covered"
    title = "Not covered by the consent"


NOTHING_TOLD: Final = "This is not permitted."
_TOLD: Final[dict[str, type[Forbidden]]] = {
    "consent-not-active": ConsentNotActive,
    "outside-window": OutsideWindow,
    "quota-spent": QuotaSpent,
    "agent-quota-spent": QuotaSpent,
    "company-suspended": CompanySuspended,
}


@dataclass(frozen=True, slots=True)
class Permit:
    """Proof that one action was allowed on the facts in its record.

    Args:
        action: What may happen.
        consent_id: Under which consent.
        version: The version that was decided on; spending refuses any other.
        vault_id: Whose vault.
        subject: The person's pseudonym towards the grantee.
        categories: What may be read.
        data_from: First month that may be read.
        data_to: Last month that may be read.
        profile: The person's that was decided on, and spending refuses any other.
        company_version: Of the asking company's record that was decided on, and spending refuses any other; 0 where
            no company asks.
        agent: Whether a software agent asks.
        exposure: What the answer adds to what the person met this month.
        decision: The decision record's bytes, without the person's profile; replaying them allows the same.
        policy_set_sha256: Under which rules.
        rules: Ids of the rules that allowed it.
    """

    action: Action
    consent_id: ConsentId
    version: int
    vault_id: VaultId
    subject: SubjectId
    categories: frozenset[Category]
    data_from: Period
    data_to: Period
    company_version: int
    profile: Profile = field(repr=False)
    agent: bool
    exposure: Addition
    decision: bytes
    policy_set_sha256: bytes
    rules: tuple[str, ...]


def verify_grantee(consent: Consent | None, caller: CompanyCaller | OwnerCaller) -> Consent:
    """Return a consent if it is this caller's to ask under, before anything else about it is looked at.

    Args:
        consent: What the caller named, or None if nothing is kept under that id.
        caller: Who asks.

    Raises:
        Forbidden: No such consent, somebody else's, or not the one that the token is for. All look
            the same, so nobody learns which consents exist.
    """
    if consent is not None and _is_for(consent, caller):
        return consent
    raise Forbidden(NOTHING_TOLD)


def decide_ask(facts: Ask, policy_set: PolicySet) -> Permit:
    """Decide whether one question may be answered.

    Args:
        facts: As just read.
        policy_set: The rules in force.

    Raises:
        Forbidden: It may not; the error names only what the company may know, and carries the
            decision record for the denial's leaf.
    """
    verify_grantee(facts.consent, facts.caller)
    terms = facts.consent.current.terms
    addition = facts.addition()
    record = _allowed(ask_record(facts, addition, policy_set.sha256), policy_set)
    data = (terms.data_from, terms.data_to)
    company = facts.caller if isinstance(facts.caller, CompanyCaller) else None
    return _permit(facts, record, frozenset({facts.question.category}), data, company=company, exposure=addition)


def decide_refresh(facts: Use, policy_set: PolicySet) -> Permit:
    """Decide whether the worker may make imprint rows of these categories and months.

    Raises:
        Forbidden: It may not.
    """
    return _decide_use(facts, Action.REFRESH, policy_set)


def decide_train(facts: Use, policy_set: PolicySet) -> Permit:
    """Decide whether the worker may train on these categories and months.

    Raises:
        Forbidden: It may not.
    """
    return _decide_use(facts, Action.TRAIN, policy_set)


def _decide_use(facts: Use, action: Action, policy_set: PolicySet) -> Permit:
    record = _allowed(use_record(facts, action, policy_set.sha256), policy_set)
    return _permit(facts, record, facts.categories, (facts.data_from, facts.data_to))


def _is_for(consent: Consent, caller: CompanyCaller | OwnerCaller) -> bool:
    terms = consent.current.terms
    if isinstance(caller, OwnerCaller):
        return terms.kind is ConsentKind.SELF and consent.vault_id == caller.vault_id
    if caller.grant_id is not None and caller.grant_id != consent.consent_id:
        return False
    return terms.kind is ConsentKind.COMPANY and terms.grantee == caller.company_id


def _allowed(record: DecisionRecord, policy_set: PolicySet) -> tuple[DecisionRecord, Decision]:
    decision = evaluate(record, policy_set)
    if decision.allowed:
        return without_profile(record), decision
    told = decision.code != NOT_PERMITTED
    refusal = _TOLD.get(decision.code, NotCovered) if told else Forbidden
    sentence = policy_set.rules[decision.code].sentence if told else NOTHING_TOLD
    raise refusal(sentence, rules=decision.reasons, record=dump_json(dump_decision(record)))


def _permit(
    facts: Facts,
    allowed: tuple[DecisionRecord, Decision],
    categories: frozenset[Category],
    data: tuple[Period, Period],
    *,
    company: CompanyCaller | None = None,
    exposure: Addition = NOTHING,
) -> Permit:
    record, decision = allowed
    if facts.person.vault_id != facts.consent.vault_id:  # a mix-up of two people must not pass
        raise Forbidden(NOTHING_TOLD)
    return Permit(
        action=record.action,
        consent_id=facts.consent.consent_id,
        version=facts.consent.current.version,
        vault_id=facts.consent.vault_id,
        subject=facts.consent.subject,
        categories=categories,
        data_from=data[0],
        data_to=data[1],
        company_version=0 if company is None else company.version,
        profile=facts.person.profile,
        agent=company is not None and company.agent,
        exposure=exposure,
        decision=dump_json(dump_decision(record)),
        policy_set_sha256=record.policy_set_sha256,
        rules=decision.reasons,
    )
