"""The bundle of one answer: its leaf and record, and all that anyone needs to check it offline."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Final

from sqlmodel import Session

from vault.answers.records import Kept, Records
from vault.consent import consents
from vault.consent.consents import StoredVersion
from vault.consent.errors import UnknownConsent
from vault.encoding import b64u, parse_json
from vault.keys.serving import Serving
from vault.parties import companies, company_records
from vault.policy import sets
from vault.proof.bundle import Bundle, LoggedLeaf, dump_bundle, records_by_hash
from vault.proof.leaf import LeafKind
from vault.schema.answer import Answer, parse_answer
from vault.seal.ids import sha256
from vault.tlog import log
from vault.tlog.errors import NotInLog
from vault.tlog.hashes import HashCache
from vault.tlog.log import Leaf, PendingId
from vault.twin import release

_PAGE: Final = 256
_NAMED_BY: Final = {
    LeafKind.MANIFEST: "record",
    LeafKind.POLICY_SET: "policy_set",
    LeafKind.COMPANY: "record_sha256",
}


@dataclass(frozen=True)
class Shared:
    """Models, rules and companies that many answers name: their leaves and bytes, read once and remembered.

    All of them are written once under their digest, so nothing remembered is ever stale.

    Args:
        statements: The operator's statements about the keys that sign manifests.
        tree: Subtrees of the log, from which each answer is proven.
    """

    statements: tuple[bytes, ...]
    tree: HashCache = field(default_factory=HashCache)
    _leaves: defaultdict[LeafKind, dict[str, Leaf]] = field(default_factory=lambda: defaultdict(dict))
    _seen: dict[LeafKind, int] = field(default_factory=dict)
    _records: dict[bytes, bytes] = field(default_factory=dict)
    _signed: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def manifest(self, session: Session, digest: bytes) -> bytes:
        """Return the envelope of the signed manifest of this digest."""
        if digest not in self._records:
            self._records[digest] = release.envelope(session, digest)
        return self._records[digest]

    def policy_set(self, session: Session, digest: bytes) -> bytes:
        """Return the source of the policy set of this digest."""
        if digest not in self._records:
            self._records[digest] = sets.get(session, digest)
        return self._records[digest]

    def company(self, session: Session, record: bytes) -> tuple[bytes, ...]:
        """Return a company's records up to this one: each is signed by the key of the one before it."""
        digest = sha256(record)
        if digest not in self._signed:
            kept = company_records.every(session, companies.unverified_company_id(record.decode()))
            signed = tuple(map(str.encode, kept))
            self._signed[digest] = signed[: signed.index(record) + 1]
        return self._signed[digest]

    def leaf(self, session: Session, kind: LeafKind, digest: bytes) -> Leaf:
        """Return the leaf whose public part names a record, without its personal half.

        Raises:
            NotInLog: No signed checkpoint covers one.
        """
        with self._mutex:
            if b64u(digest) not in self._leaves[kind]:
                self._read_on(session, kind)
            leaf = self._leaves[kind].get(b64u(digest))
        if leaf is None:
            raise NotInLog(f"The log holds no {kind} of this digest.")
        return leaf

    def _read_on(self, session: Session, kind: LeafKind) -> None:
        more = True
        while more:
            page = log.find(session, kind=kind, after=self._seen.get(kind, -1), limit=_PAGE)
            for leaf in page:
                name = str(parse_json(leaf.public.body)[_NAMED_BY[kind]])
                self._leaves[kind].setdefault(name, replace(leaf, personal=None))
                self._seen[kind] = leaf.index
            more = len(page) == _PAGE


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that is logged, with what its proof names.

    Args:
        leaf_id: The pending id of its leaf.
        records: Its records.
        answer: The answer in them.
        version: The consent version that allowed it.
    """

    leaf_id: PendingId
    records: Records
    answer: Answer
    version: StoredVersion


def reopen(session: Session, kept: Kept, serving: Serving) -> Given:
    """Return an answer that was given before.

    Raises:
        UnknownConsent: Its consent was forgotten meanwhile.
        NoSuchKey: The serving key's epoch is over.
        SealError: What is stored is not what was stored.
    """
    records = kept.open(serving)
    answer = parse_answer(records.answer)
    for version in consents.history(session, kept.consent_id):
        if version.version == answer.consent_version:
            return Given(kept.leaf_id, records, answer, version)
    raise UnknownConsent("The consent of this answer was forgotten.")


def build(session: Session, given: Given, shared: Shared) -> bytes:
    """Return the file that proves one answer under the newest checkpoint.

    Args:
        session: A snapshot taken after the answer's leaf was sequenced.
        given: The answer.
        shared: Models, rules and companies.

    Raises:
        NotInLog: No signed checkpoint covers it yet.
    """
    size, note = log.head(session)
    records, answer, version = given.records, given.answer, given.version
    manifest = shared.manifest(session, answer.model_sha256)
    policy_set = shared.policy_set(session, answer.policy_set_sha256)
    given_leaf, version_leaf = log.covered(session, given.leaf_id), log.covered(session, version.leaf_id)
    if given_leaf is None or version_leaf is None:
        raise NotInLog("No signed checkpoint covers this answer yet.")
    found = [records.answer, records.decision, records.question, version.envelope, manifest, policy_set]
    leaves = [
        given_leaf,
        version_leaf,
        shared.leaf(session, LeafKind.MANIFEST, sha256(manifest)),
        shared.leaf(session, LeafKind.POLICY_SET, answer.policy_set_sha256),
    ]
    if records.company:
        signed = shared.company(session, records.company)
        leaves += [shared.leaf(session, LeafKind.COMPANY, sha256(record)) for record in signed]
        found += [*signed, version.request.encode()]
    leaves.sort(key=lambda leaf: leaf.index)
    proven = tuple(
        LoggedLeaf(leaf.index, leaf.entry, shared.tree.path(session, leaf.index, size), leaf.public, leaf.personal)
        for leaf in leaves
    )
    named = records_by_hash([*found, *shared.statements])
    return dump_bundle(Bundle(note, proven, named, witnessed=shared.tree.witnessed(session, size)))
