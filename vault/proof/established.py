"""What the verifier has established so far about a bundle, which its steps share."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import merge
from itertools import accumulate
from typing import Any, Final

from vault.encoding import JsonObject, parse_b64u
from vault.errors import VaultError
from vault.proof.accounting import Curve
from vault.proof.bundle import Bundle, LoggedLeaf, Withheld
from vault.proof.checkpoint import Checkpoint
from vault.proof.decision import PolicySet
from vault.proof.deferred import Deferred, Each, settle
from vault.proof.errors import InvalidProof
from vault.proof.event import CHAINED, LAST_S, NOTHING_COUNTED, Counted, Event, Version
from vault.proof.leaf import LeafKind
from vault.proof.member import Member, members_by_group
from vault.proof.ordered import orders_by_subject
from vault.proof.question import Registered, parse_company
from vault.proof.report import Failure, Step
from vault.proof.revealed import Classifier
from vault.proof.sampled import Tally
from vault.proof.tombstone import Tombstone, tombstones_by_place, why_unordered
from vault.proof.trust import TrustedRoot
from vault.schema.answer import Answer
from vault.schema.consent import ConsentVersion
from vault.schema.question import Question
from vault.seal.dsse import Envelope, PayloadType, verify_envelope
from vault.seal.ids import SubjectId, sha256
from vault.seal.statement import KeyName, KeyStatement
from vault.seal.subject_erasure import SubjectErasure

SKEW_S: Final = 300
"""By how much the clocks of several processes of one service may differ."""


@dataclass
class Carried:
    """What the parts of one audit, verified in the order of the log, hand on to the next part.

    Args:
        complete_from: Where the first part began; None before it.
        complete_to: Index after the last leaf that was looked at.
        last: The newest event of each consent.
        counted: The newest answer of each consent.
        companies: The newest version of each company's record.
        trainings: Names of the charges of all trainings.
        charged_in_year: What trainings cost each person in a year.
        latest_s: When the newest answer or denial happened.
        checkpoint: The newest checkpoint.
        tally: What is counted for a listing; None where every consent is opened.
    """

    complete_from: int | None = None
    complete_to: int = 0
    last: dict[str, Event] = field(default_factory=dict)
    counted: dict[str, Counted] = field(default_factory=dict)
    companies: dict[str, int] = field(default_factory=dict)
    trainings: set[str] = field(default_factory=set)
    charged_in_year: dict[str, Curve] = field(default_factory=dict)
    latest_s: int = 0
    checkpoint: Checkpoint | None = None
    tally: Tally | None = None


@dataclass
class Evidence:
    """What the steps have established so far; a later step reads only what an earlier one verified or deferred."""

    bundle: Bundle
    trust: TrustedRoot
    carried: Carried
    classifier: Classifier | None = None
    checkpoint: Checkpoint | None = None
    events: defaultdict[LeafKind, list[Event]] = field(default_factory=lambda: defaultdict(list))
    grouped: list[Event] = field(default_factory=list)
    keys: dict[str, KeyStatement] = field(default_factory=dict)
    versions: defaultdict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[int, Answer] = field(default_factory=dict)
    questions: dict[int, Question] = field(default_factory=dict)
    by_agents: set[int] = field(default_factory=set)
    counted: defaultdict[str, list[Counted]] = field(default_factory=lambda: defaultdict(list))
    policy_sets: dict[bytes, PolicySet] = field(default_factory=dict)
    checked: Counter[Step] = field(default_factory=Counter)
    withheld: Counter[Step] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    unopened: list[tuple[LoggedLeaf, JsonObject]] = field(default_factory=list)
    erased: Counter[str] = field(default_factory=Counter)
    signed: set[tuple[bytes, PayloadType, bytes]] = field(default_factory=set)
    deferred: list[Deferred] = field(default_factory=list)
    attempted: tuple[Step, int | None] = (Step.BUNDLE, None)
    _saying: dict[tuple[LeafKind, str], defaultdict[str, list[Event]]] = field(default_factory=dict)

    def attempt(self, step: Step, leaf_index: int | None, check: Callable[..., None], *args: object) -> None:
        """Run one check and keep its refusal as a failure of the step."""
        self.checked[step] += 1
        self.attempted, first = (step, leaf_index), len(self.deferred)
        try:
            check(self, *args)
        except VaultError as refusal:
            for one in self.deferred[first:]:
                one.outdone = True
            self.failures.append(Failure(step, leaf_index, refusal.detail))

    def defer(self, check: Callable[[], object], judge: Callable[[Any], None]) -> None:
        """Let a dear part of the check that is attempted now be done with all others of its kind.

        Args:
            check: Of a module's function and values, so that another process can run it; what it raises refuses.
            judge: Refuses what `check` returned by raising.
        """
        self.deferred.append(Deferred(len(self.failures), *self.attempted, check, judge))

    def settle(self, each: Each) -> None:
        """Run what was deferred; its refusals stand where they would without, in place of what the same check found later."""
        found = each(settle, (one.check for one in self.deferred))
        failures, at = [], 0
        for one, (result, detail) in zip(self.deferred, found, strict=True):
            refused = detail or one.refusal(result)
            if refused:
                failures += self.failures[at : one.place]
                at = one.place + one.outdone
                failures.append(Failure(one.step, one.leaf_index, refused))
        self.failures[:] = [*failures, *self.failures[at:]]
        self.deferred.clear()

    def hand_on(self) -> None:
        """Bring what is carried to the next part of an audit up to date."""
        carried = self.carried
        if carried.complete_from is None:
            carried.complete_from = self.whole.start
        new = (event for event in self.of_kind(*CHAINED) if event.index in self.whole)
        carried.last |= {event.consent: event for event in new}
        carried.counted |= {consent: counts[-1] for consent, counts in self.counted.items()}
        carried.complete_to, carried.checkpoint = self.whole.stop, self.checkpoint
        asked = (event.at for event in self.of_kind(LeafKind.ANSWER, LeafKind.DENIAL))
        carried.latest_s = max([carried.latest_s, *asked])
        if carried.tally is not None:
            self._count(carried.tally)

    def _count(self, tally: Tally) -> None:
        """Add what this part shows of the events that a listing counts."""
        for access in (event.public for event in self.events[LeafKind.AUDITOR_ACCESS]):
            digest, first, last = (str(access.get(name)) for name in ("listing", "first", "last"))
            tally.logged.add((digest, first, last))
        for event in self.of_kind(LeafKind.CONSENT):
            tally.given[event.consent] = str(event.personal.get("grantee")), str(event.personal.get("subject"))
        own = [event for kind in CHAINED for event in self.events[kind] if event.index in self.whole]
        for event in (*own, *self.grouped):
            if "consent" in event.personal:
                tally.opened[event.consent, event.kind] += 1
            else:
                tally.alone += event.personal_body is not None
        shared = (member for index, some in self.members.items() if index in self.whole for member in some)
        closed = [(event.index, 0, event.kind) for event in own if event.personal_body is None]
        closed += [(one.group, one.position + 1, LeafKind.DENIAL) for one in shared if one.personal is None]
        for leaf, member, kind in closed:
            (tally.erased if (leaf, member) in self.tombstones else tally.closed)[kind] += 1

    def may_be_closed(self, leaf: int, member: int = 0) -> bool:
        """Say whether an event may stand unopened because nobody chose its consent; count it as withheld if so."""
        chosen = Withheld.EVENT in self.bundle.withheld and (leaf, member) not in self.tombstones
        self.withheld[Step.OPENINGS] += chosen
        return chosen

    def shows(self, step: Step, kind: Withheld) -> bool:
        """Say whether a step can look at a kind of record; count it as withheld if not."""
        self.withheld[step] += kind in self.bundle.withheld
        return kind not in self.bundle.withheld

    @cached_property
    def tombstones(self) -> Mapping[tuple[int, int], Sequence[Tombstone]]:
        """The bundle's tombstones, by the leaf and its member that they are about."""
        return tombstones_by_place(self.bundle.records.values())

    @cached_property
    def entries(self) -> Mapping[int, bytes]:
        """The entries of the bundle's leaves, by index."""
        return {leaf.index: leaf.entry for leaf in self.bundle.leaves}

    @cached_property
    def unordered(self) -> Mapping[int, str]:
        """Why groups of tombstones account for nothing, by their leaf."""
        return why_unordered(self)

    @cached_property
    def subject_erasures(self) -> Mapping[SubjectId, SubjectErasure]:
        """The orders of people to erase a subject of theirs, by the subject."""
        return orders_by_subject(self.bundle.records.values(), self.trust.origin)

    @property
    def hides_subjects(self) -> bool:
        """Whether the bundle leaves out whose events were erased, as whose events there are."""
        return Withheld.EVENT in self.bundle.withheld

    def hide_subject(self) -> None:
        """Count an erased event of which the bundle leaves out whose it was."""
        self.withheld[Step.ERASURE] += 1

    def dated_before(self, leaf: int) -> int:
        """Return the latest time that an answer or denial logged before a leaf says, unix seconds."""
        indexes, latest = self._dated
        return latest[bisect_left(indexes, leaf)]

    @cached_property
    def _dated(self) -> tuple[list[int], list[int]]:
        events = list(self.of_kind(LeafKind.ANSWER, LeafKind.DENIAL))
        said = (event.said_at or 0 for event in events)
        return [event.index for event in events], [*accumulate(said, max, initial=self.carried.latest_s)]

    @cached_property
    def members(self) -> Mapping[int, Sequence[Member]]:
        """The bundle's events that share a leaf, by that leaf."""
        return members_by_group(self.bundle.records.values())

    @cached_property
    def logged_keys(self) -> set[str]:
        """Digests of the key statements that leaves name."""
        return {str(event.public.get("record")) for event in self.events[LeafKind.KEY]}

    @property
    def latest_s(self) -> int:
        """When the newest of the events happened that say so, unix seconds; 0 if none does."""
        said = (
            part.get("at")
            for found in self.events.values()
            for event in found
            for part in (event.public, event.personal)
        )
        return max((at for at in said if isinstance(at, int) and 0 <= at < LAST_S), default=0)

    @property
    def whole(self) -> range:
        """The range that the bundle claims to be whole."""
        return range(self.bundle.complete_from, self.bundle.complete_to)

    @property
    def looked_at(self) -> range:
        """The whole range of this part and of those before it that it continues."""
        begin = self.carried.complete_from
        return range(self.whole.start if begin is None else begin, self.whole.stop)

    def of_kind(self, *kinds: LeafKind) -> Iterator[Event]:
        """Yield events of these kinds in a consent's chain, whose personal half is open to the holder."""
        found = merge(*(self.events[kind] for kind in kinds), key=lambda event: event.index)
        return (event for event in found if "consent" in event.personal)

    def before(self, event: Event, kind: LeafKind, name: str, said: str) -> Event | None:
        """Return the newest event of a kind before another whose public half says this; every leaf is opened by now."""
        if (kind, name) not in self._saying:
            saying = self._saying[kind, name] = defaultdict(list)
            for one in self.events[kind]:
                what = one.public.get(name)
                if isinstance(what, str):
                    saying[what].append(one)
        known = self._saying[kind, name].get(said, [])
        at = bisect_left(known, event.index, key=lambda one: one.index)
        return known[at - 1] if at else None

    def record(self, event: Event, part: JsonObject, name: str) -> bytes:
        """Return the record that a leaf names by hash.

        Args:
            event: Whose leaf.
            part: The half of it that names the record.
            name: Under which name.

        Raises:
            InvalidProof: The bundle has no bytes of that hash.
            MalformedInput: What the leaf says there is no hash.
        """
        found = self.bundle.records.get(parse_b64u(part.get(name), size=32))
        if found is None:
            raise InvalidProof(f"The bundle lacks the {name} that leaf {event.index} names, or it was altered.")
        return found

    def counted_before(self, event: Event) -> Iterator[Counted]:
        """Yield what the quota of the event's consent had counted before it, newest first.

        It ends early where the log is looked at from the middle of the consent's life on: only its service knows what
        was before.
        """
        own = self.counted.get(event.consent, [])
        newest = bisect_left(own, event.index, key=lambda one: one.index) - 1
        yield from (own[at] for at in range(newest, -1, -1))
        given = self.versions[event.consent][0]
        if event.consent in self.carried.counted:
            yield self.carried.counted[event.consent]
        elif given.version.version == 1 and given.index in self.looked_at:
            yield NOTHING_COUNTED

    def versions_before(self, event: Event) -> list[ConsentVersion]:
        """Return the versions of the event's consent that are logged before it, at least one.

        Raises:
            InvalidProof: None is.
        """
        logged = [known.version for known in self.versions[event.consent] if known.index < event.index]
        if not logged:
            raise InvalidProof("No verified version of the consent is logged before this event.")
        return logged

    def version_at(self, event: Event) -> ConsentVersion:
        """Return the newest version of the event's consent that is logged before it.

        Raises:
            InvalidProof: None is.
        """
        return self.versions_before(event)[-1]

    def company_at(self, event: Event) -> Registered:
        """Return what the record said that was in force at an event of the company that asked: the newest before it.

        Raises:
            InvalidProof: None is logged before it, or the bundle lacks it.
            BadJws: It is malformed or about another company.
        """
        asked = str(event.personal.get("requester"))
        record = self.before(event, LeafKind.COMPANY, "company", asked)
        if record is None:
            raise InvalidProof("No record of the company is logged before its question.")
        return parse_company(self.company_record(record), asked)

    def company_record(self, event: Event) -> str:
        """Return the record that a company's leaf names; raises what `record` does."""
        return self.record(event, event.public, "record_sha256").decode("ascii", "replace")

    def verify_signed(self, envelope: Envelope, payload_type: PayloadType, name: KeyName, at: int = LAST_S) -> None:
        """Refuse a record that no key of this name, vouched for by the operator and in force by then, signed.

        Args:
            envelope: The record.
            payload_type: What it must be.
            name: Of the key.
            at: When it was signed, unix seconds; by default any key that is known may have.

        Raises:
            InvalidProof: None did, or in a range claimed whole the key that did was never logged.
            SealError: The signature is wrong, or over another type.
        """
        for digest, key in self.keys.items():
            if key.name is name and key.not_before <= at and sha256(key.public_key)[:16] == envelope.signatures[0][0]:
                signed = envelope.digest, payload_type, key.public_key
                if signed not in self.signed:
                    verify_envelope(envelope, payload_type, key.public_key)
                    self.signed.add(signed)
                if self.whole and digest not in self.logged_keys:
                    raise InvalidProof(f"The {name} key that signed the {payload_type} record was never logged.")
                return
        raise InvalidProof(f"No {name} key that the operator vouched for signed the {payload_type} record.")
