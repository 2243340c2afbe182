"""Denials that share a leaf: all of them are shown, each is replayed like any other, or was erased."""

from __future__ import annotations

from collections.abc import Callable

from vault.encoding import b64u
from vault.proof.bound import verify_bound_event
from vault.proof.errors import InvalidProof
from vault.proof.established import Evidence
from vault.proof.event import Event
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.proof.member import MINUTE_S, Member, verify_group
from vault.proof.report import Step
from vault.proof.tombstone import verify_erased


def verify_denials(evidence: Evidence, replay: Callable[[Evidence, Event], None]) -> None:
    """Run the step groups, and the step decision for every denial of a group.

    Args:
        evidence: What the steps before have established.
        replay: Decides a denial again.
    """
    groups = {event.index: event for event in evidence.events[LeafKind.DENIALS] if event.index in evidence.whole}
    for index in groups.keys() | evidence.members.keys():
        evidence.attempt(Step.GROUPS, index, _verify_group, groups.get(index), index)
        for member in evidence.members.get(index, ()) if index in groups else ():
            evidence.attempt(Step.GROUPS, index, _verify_member, groups[index], member)
    for denial in evidence.grouped:
        if denial.personal.get("decision"):
            evidence.attempt(Step.DECISION, denial.index, replay, denial)


def _verify_group(evidence: Evidence, group: Event | None, index: int) -> None:
    if group is None:
        raise InvalidProof("Events are shown of a leaf that stands for none.")
    verify_group(evidence.members.get(index, ()), group.public)


def _verify_member(evidence: Evidence, group: Event, member: Member) -> None:
    public = verify_opening(member.entry, Part.PUBLIC, member.public)
    if public.get("kind") != LeafKind.DENIAL:
        raise InvalidProof("An event of a group of denials is none.")
    if member.personal is None:
        if evidence.may_be_closed(member.group, member.position + 1):
            return None
        return verify_erased(evidence, member.group, member.entry, public, member.position + 1)
    personal = verify_opening(member.entry, Part.PERSONAL, member.personal)
    denial = Event(group.index, LeafKind.DENIAL, public, personal, member.personal.body)
    evidence.grouped.append(denial)
    if "consent" in personal:
        verify_bound_event(public, personal)
        if personal.get("subject") != b64u(evidence.version_at(denial).subject):
            raise InvalidProof("A denial of a group names another person than signed the consent.")
    said = (personal.get("requester"), denial.at - denial.at % MINUTE_S)
    if said != (group.personal.get("requester"), group.personal.get("minute")):
        raise InvalidProof("A denial stands in the group of another company or minute.")
    return None
