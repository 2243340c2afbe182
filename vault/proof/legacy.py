"""The steps of a legacy, held against what owner and executors signed: plan, declaration, waiting, and how it ended.

Only the owner and the executors are shown these steps; an auditor's bundle holds their public halves, which tell
nobody's vault, and there is nothing here to look at.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import merge
from typing import Final

from vault.clock import DAY_S
from vault.encoding import b64u, parse_b64u
from vault.proof.errors import InvalidProof
from vault.proof.established import SKEW_S, Evidence
from vault.proof.event import Event
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.proof.waited import SLACK_S, parse_waited, verify_waited
from vault.proof.witness import WitnessPolicy
from vault.seal.dsse import Envelope, PayloadType, parse_envelope, unverified_record, verify_envelope
from vault.seal.ids import ID_BYTES, VaultId, sha256
from vault.seal.legacy import Act, Choice, LegacyTerms, verify_plan, verify_statement
from vault.seal.person import Role, parse_sign_in, verify_identity
from vault.seal.version import NO_PREV

_STEPS: Final = (
    LeafKind.LEGACY_PLAN, LeafKind.LEGACY_CLAIM, LeafKind.LEGACY_FORCE, LeafKind.LEGACY_OPEN, LeafKind.LEGACY_VETO,
)  # fmt: skip
_ORDERS: Final = (LeafKind.FREEZE, LeafKind.PROFILE)
_BY_EXECUTORS: Final = "executors"
_EXPIRY_BYTES: Final = 4


@dataclass
class _Course:
    """How far the legacy of one vault has come.

    Args:
        last: The newest step.
        version: Of the newest plan.
        plan: Digest of its envelope.
        terms: What it says; None before any, and where it was withdrawn or is over.
        claim: What was declared under it, if anything.
        by_executors: Whether they declared it; otherwise the plan began by itself.
        in_force: Whether that took effect.
        keys: Every legacy key so far.
        frozen: Whether the vault is.
        froze: Whether the plan, which began by itself, froze what nobody else had frozen.
        died: Where a restored service, which forgot the course of the plan, said again that the person has died.
    """

    last: Event | None = None
    version: int = 0
    plan: bytes = NO_PREV
    terms: LegacyTerms | None = None
    claim: Event | None = None
    by_executors: bool = False
    in_force: bool = False
    keys: set[bytes] = field(default_factory=set)
    frozen: bool = False
    froze: bool = False
    died: Event | None = None


def verify_legacies(evidence: Evidence) -> None:
    """Run the step legacy over every vault whose steps are opened."""
    courses: defaultdict[VaultId, _Course] = defaultdict(_Course)
    kinds = (*_STEPS, *_ORDERS, LeafKind.ERASURE)
    for event in merge(*(evidence.events[kind] for kind in kinds), key=lambda event: event.index):
        by_others = event.kind is LeafKind.ERASURE and event.public.get("author") != _BY_EXECUTORS
        if event.personal_body is not None and not by_others:
            check = _CHECKS.get(event.kind, _verify_step)
            evidence.attempt(Step.LEGACY, event.index, check, event, courses)


def _verify_step(evidence: Evidence, event: Event, courses: defaultdict[VaultId, _Course]) -> None:
    vault = VaultId(parse_b64u(event.personal.get("vault"), size=ID_BYTES))
    course = courses[vault]
    _verify_chained(event, course.last)
    match event.kind:
        case LeafKind.LEGACY_PLAN:
            _verify_plan(evidence, event, vault, course)
        case LeafKind.LEGACY_CLAIM:
            _verify_claim(evidence, event, vault, course)
        case LeafKind.LEGACY_FORCE:
            _verify_force(evidence, event, course)
        case LeafKind.LEGACY_OPEN:
            _verify_open(evidence, event, vault, course)
        case _:
            _verify_veto(evidence, event, vault, course)
    course.last = event


def _verify_chained(event: Event, before: Event | None) -> None:
    wanted = (1, "") if before is None else (_seq(before) + 1, b64u(sha256(before.personal_body or b"")))
    if (_seq(event), event.personal.get("prev")) != wanted:
        raise InvalidProof("A step of this legacy is withheld before this one, or one of the two was exchanged.")
    if before is not None and event.at < before.at - SKEW_S:
        raise InvalidProof("The step is dated before the one that it follows.")


def _verify_plan(evidence: Evidence, event: Event, vault: VaultId, course: _Course) -> None:
    envelope = parse_envelope(evidence.record(event, event.personal, "record"))
    plan = verify_plan(envelope, _owner_key(evidence, event, vault), vault)
    sealed = 0 if plan.terms is None else len(plan.terms.sealed)
    said = tuple(event.personal.get(name) for name in ("version", "plan", "sealed"))
    if said != (plan.version, b64u(envelope.digest), sealed) or (plan.version, plan.prev) != (
        course.version + 1,
        course.plan,
    ):
        raise InvalidProof("The plan does not follow the one before, or its leaf says something else.")
    if plan.terms is not None and plan.terms.legacy_key in course.keys:
        raise InvalidProof("The plan has the legacy key of an earlier one, which may be in one hand by now.")
    course.version, course.plan, course.terms = plan.version, envelope.digest, plan.terms
    course.claim, course.in_force = None, False
    course.keys |= set() if plan.terms is None else {plan.terms.legacy_key}


def _verify_claim(evidence: Evidence, event: Event, vault: VaultId, course: _Course) -> None:
    terms = course.terms
    if event.personal.get("record") == b64u(course.plan):
        _verify_alone(event, course)
        return
    if terms is None or (course.claim is not None and course.by_executors):
        raise InvalidProof("Something is declared without a plan, or under one that was used already.")
    envelope = parse_envelope(evidence.record(event, event.personal, "record"))
    statement = verify_statement(envelope, terms.legacy_key, vault, course.plan)
    said = event.personal.get("claim"), event.personal.get("plan")
    if statement.act is not Act.DECLARE or said != (b64u(statement.claim), b64u(course.plan)):
        raise InvalidProof("The declaration and its leaf do not say the same.")
    _verify_until(event, terms)
    if not -SKEW_S <= event.at - statement.issued_at <= DAY_S:
        raise InvalidProof("The declaration is dated long before or after it was signed.")
    course.claim, course.by_executors, course.in_force = event, True, False


def _verify_alone(event: Event, course: _Course) -> None:
    terms, since = course.terms, event.personal.get("inactive_since")
    if terms is None or not terms.inactive_days or course.claim is not None:
        raise InvalidProof("The waiting period began by itself where the owner's plan does not say so.")
    if not isinstance(since, int) or event.at < since + terms.inactive_s:
        raise InvalidProof("The waiting period began by itself before the owner's plan says.")
    _verify_until(event, terms)
    course.claim, course.by_executors, course.in_force = event, False, False


def _verify_until(event: Event, terms: LegacyTerms) -> None:
    if event.personal.get("until") != event.at + terms.waiting_s:
        raise InvalidProof("The declaration takes effect at another time than the owner's plan says.")


def _verify_force(evidence: Evidence, event: Event, course: _Course) -> None:
    claim = _claimed(event, course)
    if course.in_force or event.personal.get("record") != claim.personal.get("record"):
        raise InvalidProof("What takes effect took effect already, or is not what was declared.")
    until = claim.personal.get("until")
    if not isinstance(until, int) or event.at < until:
        raise InvalidProof("The declaration took effect before the owner's waiting period had passed.")
    if evidence.trust.witnesses is not None:
        _verify_waited(evidence, event, claim, course, evidence.trust.witnesses)
    course.in_force = True


def _verify_waited(evidence: Evidence, event: Event, claim: Event, course: _Course, witnesses: WitnessPolicy) -> None:
    """Hold the service's own dates, which it could have made up together with executors, against the witnesses'."""
    assert course.terms is not None
    if "witnessed" not in event.personal:
        raise InvalidProof("No witness saw how long the declaration waited, and the trusted keys name witnesses.")
    waited = parse_waited(evidence.record(event, event.personal, "witnessed"))
    entry = next(leaf.entry for leaf in evidence.bundle.leaves if leaf.index == claim.index)
    if verify_waited(waited, claim.index, entry, evidence.trust.log, witnesses) < course.terms.waiting_s - SLACK_S:
        raise InvalidProof("By the witnesses' clocks the declaration waited for less than the owner's plan says.")


def _verify_order(evidence: Evidence, event: Event, courses: defaultdict[VaultId, _Course]) -> None:
    """Check what was done to a vault on somebody else's word than its owner's: it follows from a plan in force."""
    vault = VaultId(parse_b64u(event.personal.get("vault"), size=ID_BYTES))
    course, envelope = courses[vault], parse_envelope(evidence.record(event, event.personal, "record"))
    freezes = event.kind is LeafKind.FREEZE and event.personal.get("frozen") == 1
    died = event.kind is LeafKind.PROFILE and event.personal.get("deceased") == 1
    match envelope.payload_type:
        case PayloadType.FREEZE | PayloadType.PROFILE:
            verify_envelope(envelope, envelope.payload_type, _owner_key(evidence, event, vault))
        case PayloadType.SIGN_IN:
            _verify_alive(evidence, event, vault, course)
        case _ if event.personal.get("again") == 1 and (freezes or died):
            # A restored database forgot the plan's course. It only forbids, which the service could do anyway.
            course.died = event if died else course.died
        case PayloadType.EXECUTORS | PayloadType.LEGACY:
            _verify_ordered(event, vault, course, envelope, freezes=freezes)
        case _:
            raise InvalidProof("Something was ordered about this vault by a record that can order nothing.")
    if event.kind is LeafKind.FREEZE:
        by_plan = event.personal.get("record") == b64u(course.plan)
        course.froze, course.frozen = freezes and by_plan and (course.froze or not course.frozen), freezes


def _verify_ordered(event: Event, vault: VaultId, course: _Course, envelope: Envelope, *, freezes: bool) -> None:
    claim, terms = course.claim, course.terms
    if claim is None or terms is None or not course.in_force:
        raise InvalidProof("Something was ordered about this vault before the declaration was in force.")
    answers = course.by_executors and terms.choice is Choice.ANSWER
    if _same_record(event, claim):
        if freezes == answers or (event.kind is LeafKind.FREEZE and not (freezes or course.froze)):
            raise InvalidProof("The declaration did something else than the owner's plan says.")
        return
    statement = verify_statement(envelope, terms.legacy_key, vault, course.plan)
    until = claim.personal.get("until")
    if not freezes or statement.act is not Act.FREEZE or b64u(statement.claim) != claim.personal.get("claim"):
        raise InvalidProof("The executors' statement and its leaf do not say the same.")
    if not isinstance(until, int) or statement.issued_at < until:
        raise InvalidProof("The executors' statement was signed before the owner's waiting period had passed.")


def _verify_alive(evidence: Evidence, event: Event, vault: VaultId, course: _Course) -> None:
    ended = course.last is not None and course.last.kind is LeafKind.LEGACY_VETO and _same_record(event, course.last)
    if event.kind is not LeafKind.PROFILE or event.personal.get("deceased") == 1 or not (ended or course.died):
        raise InvalidProof("The profile was changed by a sign-in that ended nothing.")
    if not ended and course.died is not None:
        _verify_sign_of_life(evidence, event, vault, course.died)
    course.died = None


def _verify_erasure(evidence: Evidence, event: Event, courses: defaultdict[VaultId, _Course]) -> None:
    """Check that executors could order to erase everything, and did."""
    vault = VaultId(parse_b64u(event.personal.get("vault"), size=ID_BYTES))
    course = courses[vault]
    claim, terms = course.claim, course.terms
    if claim is None or terms is None or not course.in_force or not course.by_executors:
        raise InvalidProof("Something was ordered about this vault before the declaration was in force.")
    if terms.choice is not Choice.ERASE:
        raise InvalidProof("The owner's plan does not let executors erase.")
    envelope = parse_envelope(evidence.record(event, event.personal, "order"))
    statement = verify_statement(envelope, terms.legacy_key, vault, course.plan)
    claimed = b64u(statement.claim)
    said = event.personal.get("erasure"), claim.personal.get("claim"), event.personal.get("whole")
    if statement.act is not Act.ERASE or said != (claimed, claimed, 1):
        raise InvalidProof("The executors' statement and its leaf do not say the same.")
    until = claim.personal.get("until")
    if not isinstance(until, int) or statement.issued_at < until:
        raise InvalidProof("The executors' statement was signed before the owner's waiting period had passed.")


def _same_record(event: Event, other: Event | None) -> bool:
    return other is not None and event.personal.get("record") == other.personal.get("record")


def _verify_open(evidence: Evidence, event: Event, vault: VaultId, course: _Course) -> None:
    claim, terms = _claimed(event, course), course.terms
    if not course.in_force or not course.by_executors or terms is None:
        raise InvalidProof("What was sealed in advance was opened before the declaration was in force.")
    envelope = parse_envelope(evidence.record(event, event.personal, "record"))
    statement = verify_statement(envelope, terms.legacy_key, vault, course.plan)
    if statement.act is not Act.OPEN or b64u(statement.claim) != event.personal.get("claim"):
        raise InvalidProof("The executors' statement and its leaf do not say the same.")
    until, named = claim.personal.get("until"), event.personal.get("consents")
    if not isinstance(until, int) or statement.issued_at < until:
        raise InvalidProof("The executors' statement was signed before the owner's waiting period had passed.")
    if not isinstance(named, list) or not {str(name) for name in named} <= {b64u(digest) for digest in terms.sealed}:
        raise InvalidProof("A consent was given that the owner's plan does not name.")


def _verify_veto(evidence: Evidence, event: Event, vault: VaultId, course: _Course) -> None:
    _verify_sign_of_life(evidence, event, vault, _claimed(event, course))
    course.claim, course.in_force, course.froze = None, False, False
    if course.by_executors:
        course.terms = None


def _verify_sign_of_life(evidence: Evidence, event: Event, vault: VaultId, before: Event) -> None:
    envelope = parse_envelope(evidence.record(event, event.personal, "record"))
    verify_envelope(envelope, PayloadType.SIGN_IN, _owner_key(evidence, event, vault))
    answer = parse_sign_in(unverified_record(envelope))
    if (answer.vault_id, answer.role, answer.origin) != (vault, Role.OWNER, evidence.trust.issuer.rstrip("/")):
        raise InvalidProof("The sign of life is none of this vault's owner at this service.")
    if int.from_bytes(answer.nonce[:_EXPIRY_BYTES], "big") < before.at:
        raise InvalidProof("The sign of life is older than the declaration.")


def _claimed(event: Event, course: _Course) -> Event:
    claim = course.claim
    if claim is None or any(event.personal.get(name) != claim.personal.get(name) for name in ("claim", "plan")):
        raise InvalidProof("The step is about another declaration than the one that waits, or about none.")
    return claim


def _owner_key(evidence: Evidence, event: Event, vault: VaultId) -> bytes:
    """Return the owner's key when a step was logged; the vault's id follows from the genesis."""
    logged = merge(
        evidence.events[LeafKind.VAULT_GENESIS], evidence.events[LeafKind.SUCCESSION], key=lambda one: one.index
    )
    mine = [one for one in logged if one.index < event.index and one.personal.get("vault") == b64u(vault)]
    records = [parse_envelope(evidence.record(one, one.personal, "record")) for one in mine]
    return verify_identity(records, vault)[-1]


def _seq(event: Event) -> int:
    found = event.personal.get("seq")
    if not isinstance(found, int):
        raise InvalidProof("The step has no number.")
    return found


_CHECKS: Final = {**dict.fromkeys(_ORDERS, _verify_order), LeafKind.ERASURE: _verify_erasure}
