"""The quota: what every answer counted, and what every decision was told to be left of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from vault.proof.decision_record import DecisionRecord
from vault.proof.errors import InvalidProof
from vault.proof.established import SKEW_S, Evidence
from vault.proof.event import Counted, Event
from vault.schema.consent import ConsentVersion
from vault.schema.terms import AGENT_ANSWERS_PER_MONTH

_SETTLED_S: Final = 2 * SKEW_S  # by then an answer is logged, whichever clocks it and the next question were read from


def verify_quota(evidence: Evidence, event: Event) -> None:
    """Count as the service must: one more than the answer before, and from one again only in a later month.

    Raises:
        InvalidProof: The answer's leaf says another count, or more than the signed quota.
    """
    quota, left = evidence.version_at(event).terms.quota_per_month, event.personal.get("quota_left")
    if event.index in evidence.by_agents:
        quota = min(quota, AGENT_ANSWERS_PER_MONTH)
    if not isinstance(left, int) or not 0 <= left < quota:
        raise InvalidProof("The consent gave more answers this month than its signed quota.")
    said, period = quota - left, verify_period(event)
    before = next(evidence.counted_before(event), None)
    expected = said if before is None else before.used_in(period) + 1
    if said != expected:
        raise InvalidProof(f"The answer is number {expected} of its month under this consent, but counted as {said}.")
    month = period if before is None else max(period, before.month)
    evidence.counted[event.consent].append(Counted(event.index, event.at, month, said))


def verify_period(event: Event) -> str:
    """Return the month of an answer or a denial, which must be the one that it happened in.

    Raises:
        InvalidProof: Its leaf says another.
    """
    period = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m")
    if event.public.get("period") != period:
        raise InvalidProof(f"The {event.kind} is counted in another month than it was given in.")
    return period


def verify_left(evidence: Evidence, event: Event, decision: DecisionRecord, decided_on: ConsentVersion) -> None:
    """Check that a decision was told what was left of the quota, as far as the log shows it.

    Others may have been answered between the decision and its leaf: every count is right that the consent still
    may have had when it was decided.

    Args:
        evidence: What the steps before have established; every answer before the event was counted.
        event: The answer or denial.
        decision: Its record.
        decided_on: The version of the consent that was decided on.

    Raises:
        InvalidProof: The consent never had left what the decision was told, or more than its signed quota.
    """
    quota, left = decided_on.terms.quota_per_month, decision.context.get("quota_left")
    if not isinstance(left, int) or left > quota:
        raise InvalidProof("The decision was told that more is left than the signed quota.")
    used = quota - left
    if decision.context.get("agent_quota_left") != min(quota, AGENT_ANSWERS_PER_MONTH) - used:
        raise InvalidProof("The decision was told two counts of the consent's answers that do not fit together.")
    period = verify_period(event)
    for one in evidence.counted_before(event):
        if one.used_in(period) == used:
            return
        if one.at < event.at - _SETTLED_S:
            raise InvalidProof(f"The decision was told that {used} answers of the month were used, which never was so.")
