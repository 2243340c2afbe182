"""What an auditor is shown of a stretch of the log: all that is public, and how every question was decided.

Open are the public halves of all leaves, and the personal halves of consents, answers and denials:
those name people by pairwise pseudonyms only, and answers and questions by their hashes. So are the charges
of trainings, the same for everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

from sqlmodel import Session

from vault.answers import records
from vault.consent import consents
from vault.encoding import JsonObject, b64u, parse_b64u, parse_json
from vault.evidence.auditors import Engagement
from vault.keys import statements
from vault.keys.serving import Serving
from vault.parties import company_records
from vault.policy import sets
from vault.proof.bundle import Bundle, LoggedLeaf, Withheld, records_by_hash
from vault.proof.leaf import LeafKind, Opening
from vault.proof.member import dump_member
from vault.proof.merkle import inclusion_proof
from vault.seal.ids import ConsentId, sha256
from vault.tlog import groups, log, tombstones
from vault.tlog.groups import Kept
from vault.tlog.log import Leaf, PendingId
from vault.tlog.witnesses import witnessed
from vault.twin import release

_CHAINED: Final = frozenset({LeafKind.CONSENT_REQUEST, LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.DENIAL})
# What a training cost everybody, and which company's denials share a leaf.
_OPENED: Final = _CHAINED | {LeafKind.TRAINING, LeafKind.DENIALS}
_OF_ALL: Final = (LeafKind.KEY, LeafKind.MANIFEST, LeafKind.MODEL_WITHDRAWN, LeafKind.POLICY_SET)
_OF_COMPANIES: Final = (LeafKind.COMPANY, LeafKind.COMPANY_STATUS)
_WITHHELD: Final = frozenset({Withheld.ANSWER, Withheld.QUESTION})


def build(session: Session, serving: Serving, first: int, last: int, engagement: Engagement | None = None) -> Bundle:
    """Return the leaves from `first` to `last`, proven under the newest checkpoint, and what they name.

    Leaves before `first` are added where one in the range may refer to them: keys, models, rules,
    the companies that asked or changed, and the versions of every consent that has an event in the range. So are
    those that hold the tombstones of openings which were erased, and the auditor's listings that were logged.

    Args:
        session: A snapshot.
        serving: Opens the records of decisions.
        first: First index.
        last: Last index, below the size of the signed tree.
        engagement: Whose events are opened, where the auditor chose from a listing; by default everybody's.

    Raises:
        NoSuchKey: A decision is locked under a serving key whose epoch is over.

    Guarantees: no vault id, no answer and no question is in the bundle.
    """
    size, note = log.head(session)
    opened = None if engagement is None else engagement.opened
    whole = log.find(session, after=first - 1, limit=last - first + 1)
    asked = [leaf if _is_open(leaf.kind, leaf.personal, opened) else replace(leaf, personal=None) for leaf in whole]
    shared = {leaf.pending_id: leaf.index for leaf in asked if leaf.kind is LeafKind.DENIALS}
    every = groups.members(session, shared)
    kept = [one if _is_open(LeafKind.DENIAL, one.member.personal, opened) else _closed(one) for one in every]
    halves = [*(leaf.personal for leaf in asked if leaf.kind in _CHAINED), *(one.member.personal for one in kept)]
    events = [parse_json(half.body) for half in halves if half]
    named = {ConsentId(parse_b64u(event["consent"])) for event in events if "consent" in event}
    askers = {event.get("requester") for event in events}
    askers |= {parse_json(leaf.public.body)["company"] for leaf in whole if leaf.kind is LeafKind.COMPANY}
    versions = consents.versions_of(session, named)
    envelopes = {version.leaf_id: version.envelope for version in versions}
    needed = log.read(session, envelopes)
    for kind in _OF_ALL:
        needed += log.find(session, kind=kind, limit=first)
    for kind in _OF_COMPANIES:
        found = log.find(session, kind=kind, limit=first)
        needed += [leaf for leaf in found if parse_json(leaf.public.body)["company"] in askers]
    erased = [leaf.pending_id for leaf in whole if _is_erased(leaf)]
    erased += [one.pending_id for one in every if one.member.personal is None]
    needed += [] if engagement is None else _listings(session, engagement, size)
    stones, days = tombstones.proofs(session, erased, subjects=opened is None)
    around = [*needed, *log.read(session, map(PendingId, days | tombstones.orders_of(session, days)))]
    outside = {leaf.index: leaf for leaf in around if not first <= leaf.index <= last}
    leaves = sorted((_shown(leaf) for leaf in [*outside.values(), *asked]), key=lambda leaf: leaf.index)
    decided = [leaf.pending_id for leaf in asked if leaf.kind in {LeafKind.ANSWER, LeafKind.DENIAL} and leaf.personal]
    decided += [one.pending_id for one in kept if one.member.personal]
    shown = [envelopes[leaf.pending_id] for leaf in leaves if leaf.pending_id in envelopes]
    shown += [one.decision for one in records.read(session, serving, decided).values() if one.decision]
    shown += [*_public_records(session, leaves), *statements.envelopes(session), *stones]
    shown += [dump_member(one.member) for one in kept]
    hash_at = log.hashes_at(session, size)
    proven = tuple(
        LoggedLeaf(
            leaf.index, leaf.entry, tuple(inclusion_proof(leaf.index, size, hash_at)), leaf.public, leaf.personal
        )
        for leaf in leaves
    )
    seen = witnessed(session, size, hash_at)
    withheld = _WITHHELD if opened is None else _WITHHELD | {Withheld.EVENT}
    return Bundle(note, proven, records_by_hash(shown), first, last + 1, withheld, seen)


def _is_open(kind: LeafKind, personal: Opening | None, opened: Collection[ConsentId] | None) -> bool:
    """Say whether an event may be opened: everybody's, or only those of the consents that the auditor chose."""
    if opened is None or kind not in _CHAINED or personal is None:
        return True
    consent = parse_json(personal.body).get("consent")
    return consent is not None and parse_b64u(consent) in opened


def _closed(one: Kept) -> Kept:
    return replace(one, member=replace(one.member, personal=None))


def _listings(session: Session, engagement: Engagement, size: int) -> list[Leaf]:
    accesses = (
        (leaf, parse_json(leaf.public.body)) for leaf in log.find(session, kind=LeafKind.AUDITOR_ACCESS, limit=size)
    )
    return [
        leaf
        for leaf, said in accesses
        if "listing" in said and parse_b64u(said["auditor"])[: len(engagement.key_id)] == engagement.key_id
    ]


def _is_erased(leaf: Leaf) -> bool:
    return leaf.kind in _CHAINED and leaf.personal is None


def _shown(leaf: Leaf) -> Leaf:
    return leaf if leaf.kind in _OPENED else replace(leaf, personal=None)


def _public_records(session: Session, leaves: Iterable[Leaf]) -> Iterator[bytes]:
    """Yield manifests, policy sets and companies' records that leaves name."""
    named: defaultdict[str, set[str]] = defaultdict(set)  # by company: each one's records are read once
    for leaf in leaves:
        public: JsonObject = parse_json(leaf.public.body)
        if leaf.kind is LeafKind.MANIFEST:
            yield release.envelope(session, parse_b64u(public["model"]))
        elif leaf.kind is LeafKind.POLICY_SET:
            yield sets.get(session, parse_b64u(public["policy_set"]))
        elif leaf.kind is LeafKind.COMPANY:
            named[str(public["company"])].add(str(public["record_sha256"]))
    for company, digests in named.items():
        kept = map(str.encode, company_records.every(session, company))
        yield from (record for record in kept if b64u(sha256(record)) in digests)
