"""Replay: every decision is made again, from its record, under the logged policy set, on the terms that were signed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from vault.encoding import b64u, parse_b64u, parse_json
from vault.proof.certificate import parse_manifest
from vault.proof.decision import Decision, parse_policy_set
from vault.proof.decision_record import DecisionRecord, consent_entity, month_number, parse_decision
from vault.proof.deferred import decide_again
from vault.proof.errors import InvalidProof
from vault.proof.established import Evidence
from vault.proof.event import Event
from vault.proof.leaf import LeafKind
from vault.proof.quota import verify_left
from vault.proof.revealed import verify_revealed
from vault.schema.consent import ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.dsse import parse_envelope

_NOT_SPENT: Final = ["not-spent"]  # the rules allowed, but no longer when it was to be logged


def _read(evidence: Evidence, event: Event) -> tuple[DecisionRecord, Callable[[], Decision]]:
    """Return an event's decision, and what makes it again."""
    decision = parse_decision(parse_json(evidence.record(event, event.personal, "decision")))
    if decision.context.get("agent"):
        evidence.by_agents.add(event.index)
    digest = parse_b64u(event.public.get("policy_set"), size=32)
    if digest not in evidence.policy_sets:
        evidence.policy_sets[digest] = parse_policy_set(evidence.record(event, event.public, "policy_set"))
    if evidence.before(event, LeafKind.POLICY_SET, "policy_set", b64u(digest)) is None:
        raise InvalidProof("The policy set is not logged before the question.")
    context, question = decision.context, evidence.questions.get(event.index)
    if question is not None and context.get("categories") != [question.category]:
        raise InvalidProof("The decision was made about another category of data.")
    if question is not None and context.get("purpose") != question.purpose:
        raise InvalidProof("The decision was made for another purpose than was asked for.")
    if (context.get("question"), context.get("now")) != (event.public.get("question_kind"), event.at):
        raise InvalidProof("The decision was made about another kind of question or for another time.")
    return decision, partial(decide_again, decision, evidence.policy_sets[digest].source)


def verify_denial(evidence: Evidence, event: Event) -> None:
    """Decide a denial again: it must be denied, for the reasons that the person is told.

    Raises:
        VaultError: A record is missing or malformed, or the decision was made on other facts than the log and the
            records show; `InvalidProof` where nothing else says it. What replaying finds is judged later.
    """
    decision, again = _read(evidence, event)
    # While a question is decided its consent may get another version: any that was logged may have decided.
    decided_on = _verify_terms(evidence, event, decision, evidence.versions_before(event))
    verify_left(evidence, event, decision, decided_on)
    evidence.defer(again, partial(_verify_reasons, event))


def _verify_reasons(event: Event, outcome: Decision) -> None:
    if event.personal.get("rules") != (_NOT_SPENT if outcome.allowed else [*outcome.reasons]):
        raise InvalidProof("Replaying the decision does not deny it for the reasons that the leaf tells the person.")


def _verify_terms(
    evidence: Evidence, event: Event, decision: DecisionRecord, versions: list[ConsentVersion]
) -> ConsentVersion:
    """Return the version that was decided on, one of those that may have been."""
    context = decision.context
    signed = ((consent_entity(version, decision.resource), version) for version in versions)
    used = [version for consent, version in signed if consent in decision.entities]
    if not used or context.get("consent") != consent_entity(used[-1], decision.resource).uid.reference:
        raise InvalidProof("The decision was made on other terms than the person signed.")
    window = [month_number(period) for period in (used[-1].terms.data_from, used[-1].terms.data_to)]
    if [context.get("data_from"), context.get("data_to")] != window:
        raise InvalidProof("The decision was made about other months of data than the consent covers.")
    requester, terms = event.personal.get("requester"), versions[-1].terms
    if terms.grantee != requester:
        raise InvalidProof("Somebody else asked than the consent was given to.")
    if terms.kind is ConsentKind.COMPANY:
        if decision.principal.id != requester:
            raise InvalidProof("The decision was made about another requester.")
        _verify_agent(evidence, event, decision)
    return used[-1]


def _verify_agent(evidence: Evidence, event: Event, decision: DecisionRecord) -> None:
    if decision.context.get("agent") != evidence.company_at(event).agent:
        raise InvalidProof("The decision was made about an agent where the company registered as none, or the reverse.")


def verify_decision(evidence: Evidence, event: Event) -> None:
    """Decide an answer again: it must be allowed, for the same purpose, to a company that was not suspended.

    Raises:
        VaultError: As for a denial.
    """
    decision, again = _read(evidence, event)
    evidence.defer(again, _verify_allowed)
    decided_on = _verify_terms(evidence, event, decision, [evidence.version_at(event)])
    verify_left(evidence, event, decision, decided_on)
    context = decision.context
    if context.get("purpose") != event.public.get("purpose"):
        raise InvalidProof("The decision was made for another purpose.")
    _verify_revealed(evidence, event, decision, decided_on)
    requester = str(event.personal.get("requester"))
    status = evidence.before(event, LeafKind.COMPANY_STATUS, "company", requester)
    if status is not None and status.public.get("status") != "active":
        raise InvalidProof("The company was suspended when it asked.")


def _verify_revealed(evidence: Evidence, event: Event, decision: DecisionRecord, decided_on: ConsentVersion) -> None:
    classifier, question = evidence.classifier, evidence.questions.get(event.index)
    if classifier is None or question is None or event.public.get("classifier") != classifier.version:
        return
    manifest = parse_manifest(parse_envelope(evidence.record(event, event.public, "manifest")).payload)
    opted_in = decided_on.terms.explicit_special
    verify_revealed(classifier, question, manifest.map_sha256, opted_in, decision.context.get("reveals", ""))


def _verify_allowed(outcome: Decision) -> None:
    if not outcome.allowed:
        raise InvalidProof(f"Replaying the decision denies it: {', '.join(outcome.reasons) or outcome.code}.")
