"""An owner who consents, as the owner's own client acts: pairwise signatures, certificates, sealed handovers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlmodel import Session

from tests.company_kit import CompanyKit, sign
from tests.vault_kit import MONTH, NOW, PURCHASE, Owner, begin
from vault.clock import unix_s
from vault.consent import changes, consents
from vault.consent.changes import Change
from vault.consent.exposure import NOTHING, Addition
from vault.consent.handovers import REQUIRED, Custody
from vault.consent.versions import Submission
from vault.db import Database
from vault.keys.processor import Processor
from vault.parties import companies, people
from vault.schema.category import Category, Purpose
from vault.schema.consent import (
    ConsentEvent,
    ConsentRequest,
    ConsentVersion,
    Notice,
    dump_consent,
    dump_consent_request,
)
from vault.schema.question import QuestionKind
from vault.schema.terms import COHORT_GRANTEE, SELF_GRANTEE, ConsentKind, Handling, Terms
from vault.seal import handover
from vault.seal.derive import imprint_key, pairwise_key
from vault.seal.dsse import Envelope, PayloadType, sign_record
from vault.seal.handover import KeyKind, seal_handover
from vault.seal.identity import Identity
from vault.seal.ids import ConsentId, new_id
from vault.seal.person import Profile, sign_profile
from vault.seal.ring import Compartment, open_seed
from vault.seal.signing import Signer, SigningKey, new_seed
from vault.seal.subject import SubjectCertificate, sign_subject
from vault.store import shortkeys as short_key_store

PURPOSE = Purpose("dpv:ProvideProductRecommendations")
HANDLING = Handling("Acme, privacy@acme.example", "EU", ("Dublin",), "P30D", "https://a.example", "https://b.example")
S = unix_s(NOW)


def terms(kind: ConsentKind, grantee: str, **changed: Any) -> Terms:
    cohort = kind is ConsentKind.COHORT
    values: dict[str, Any] = {
        "kind": kind,
        "grantee": grantee,
        "purposes": frozenset({PURPOSE}),
        "questions": frozenset() if cohort else frozenset({QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND}),
        "necessary": frozenset({PURCHASE}),
        "optional": frozenset(),
        "data_from": MONTH,
        "data_to": MONTH,
        "not_before": S,
        "not_after": S + 30 * 86_400,
        "quota_per_month": 0 if cohort else 5,
        "explicit_special": frozenset(),
        "influence_opt_in": False,
        "agent_allowed": False,
        "post_mortem": frozenset(),
        "handling": HANDLING,
    }
    return Terms(**values | changed)


@dataclass(frozen=True)
class Held:
    """The identities of a process, by the hash of their public keys."""

    identities: tuple[Any, ...]

    def find(self, key_hash: bytes) -> Any:
        return next((one for one in self.identities if one.recipient.key_hash == key_hash), None)


@dataclass
class World:
    """A service with its identities, one owner with a ring, one registered company."""

    database: Database
    shortkeys: Database
    categories: Iterable[Category] = (PURCHASE,)
    processor: Identity = field(default_factory=lambda: Identity(new_seed()))
    serving: Identity = field(default_factory=lambda: Identity(new_seed()))
    service: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    operator: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    company: CompanyKit = field(default_factory=CompanyKit)
    forgotten: list[ConsentId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner, self.source = begin(self.database, self.shortkeys, self.categories)
        with self.database.transaction() as session:
            companies.register(session, self.company.record(NOW), now=NOW)

    @cached_property
    def custody(self) -> Custody:
        hashes = {KeyKind.RAW: self.processor.recipient.key_hash, KeyKind.IMPRINT: self.serving.recipient.key_hash}
        return Custody(self.shortkeys, hashes, self.forgotten.append)

    def find(self, consent_id: bytes) -> consents.Consent:
        with self.database.snapshot() as session:
            found = consents.find(session, ConsentId(consent_id))
        assert found is not None
        return found

    @property
    def opener(self) -> Processor:
        return Processor(Held((self.processor,)), self.shortkeys, self.operator.public_key)

    def signer(self, grantee: str, owner: Owner | None = None) -> SigningKey:
        return pairwise_key((owner or self.owner).seeds.pairwise, grantee)

    def request(self, asked: Terms, **header: str) -> str:
        record = dump_consent_request(ConsentRequest(new_id(), asked, S))
        return sign(self.company.question, {"typ": "twinvault-consent-request+jwt", **header}, dict(record))

    def seed(self, compartment: Compartment, owner: Owner | None = None) -> bytes:
        owner = owner or self.owner
        return open_seed(owner.vault, compartment, owner.root, owner.locked[compartment.id])

    def handover(
        self,
        kind: KeyKind,
        granted: ConsentVersion,
        *,
        compartments: list[Compartment] | None = None,
        owner: Owner | None = None,
        signer: Signer | None = None,
        to: Identity | None = None,
        **changed: Any,
    ) -> bytes:
        """Seal one handover; the keyword arguments forge it."""
        owner = owner or self.owner
        if compartments is None:
            pages = (page for page, _ in owner.pages.values())
            wanted = (c for page in pages for c in page.compartments.values())
            t = granted.terms
            compartments = [c for c in wanted if c.category in t.usable and t.data_from <= c.period <= t.data_to]
        recipient = (to or (self.processor if kind is KeyKind.RAW else self.serving)).recipient
        about = handover.HandoverTerms(
            vault=owner.vault,
            consent=ConsentId(granted.consent_id),
            kind=kind,
            compartments=tuple(c.id for c in compartments),
            to=recipient.key_hash,
            not_before_s=granted.terms.not_before,
            not_after_s=granted.terms.not_after,
            ring_version=1,
        )
        seeds = {c.id: self.seed(c, owner) for c in compartments}
        keys = seeds if kind is KeyKind.RAW else {name: imprint_key(seed) for name, seed in seeds.items()}
        keys |= changed.pop("keys", {})
        return seal_handover(replace(about, **changed), keys, recipient, signer or owner.key).encoded

    def first(self, kind: ConsentKind = ConsentKind.COMPANY, **changed: Any) -> tuple[ConsentVersion, str]:
        """Return an unsigned first version and the request it answers; `changed` goes into the terms."""
        grantees = {ConsentKind.SELF: SELF_GRANTEE, ConsentKind.COHORT: COHORT_GRANTEE}
        grantee = changed.pop("grantee", grantees.get(kind, self.company.company_id))
        granted = terms(kind, grantee, **changed)
        request = self.request(granted) if kind is ConsentKind.COMPANY else ""
        version = ConsentVersion(
            consent_id=new_id(),
            version=1,
            consent_seq=1,
            prev=b"",
            event=ConsentEvent.GIVEN,
            event_time=S,
            principal_key=self.signer(granted.grantee).public_key,
            terms=granted,
            notice=Notice(b"n" * 32, "en"),
            request_sha256=hashlib.sha256(request.encode()).digest() if request else b"",
        )
        return version, request

    def signed(self, version: ConsentVersion, signer: Signer | None = None) -> Envelope:
        return sign_record(PayloadType.CONSENT, dump_consent(version), signer or self.signer(version.terms.grantee))

    def certificate(self, version: ConsentVersion, owner: Owner | None = None) -> Envelope:
        owner = owner or self.owner
        whose = SubjectCertificate(owner.vault, version.principal_key, version.terms.grantee)
        return sign_subject(whose, owner.key)

    def submission(self, version: ConsentVersion, request: str = "", **changed: Any) -> Submission:
        """Return everything an honest client sends with a version; `changed` forges parts of it."""
        honest = Submission(
            envelope=self.signed(version),
            handovers=tuple(self.handover(kind, version) for kind in sorted(REQUIRED[version.terms.kind]))
            if version.event.live
            else (),
            certificate=self.certificate(version) if version.version == 1 else None,
            request=request,
        )
        return replace(honest, **changed)

    def next(self, version: ConsentVersion, event: ConsentEvent, **changed: Any) -> ConsentVersion:
        """Return the unsigned version after one; `changed` goes into the version."""
        after = replace(
            version,
            version=version.version + 1,
            consent_seq=version.consent_seq + 1,
            prev=self.signed(version).digest,
            event=event,
        )
        return replace(after, **changed)

    def give(self, kind: ConsentKind = ConsentKind.COMPANY, **changed: Any) -> ConsentVersion:
        version, request = self.first(kind, **changed)
        self.give_this(self.submission(version, request))
        return version

    def give_this(self, submission: Submission, now: datetime = NOW) -> Change:
        with self.database.transaction() as session:
            return changes.give(session, submission, vault_id=self.owner.vault, custody=self.custody, now=now)

    def amend(self, version: ConsentVersion, request: str = "", **changed: Any) -> Change:
        submission = self.submission(version, request, **changed)
        with self.database.transaction() as session:
            return changes.amend(session, submission, vault_id=self.owner.vault, custody=self.custody, now=NOW)

    def declare(self, session: Session, profile: Profile) -> None:
        """Put the owner's next profile in force."""
        sequence = people.get(session, self.owner.vault).sequence + 1
        signed = sign_profile(self.owner.key, profile, vault_id=self.owner.vault, sequence=sequence)
        people.set_profile(session, self.owner.vault, signed, now=NOW)

    def withdraw(self, version: ConsentVersion) -> Change:
        """Withdraw and acknowledge, as the route does."""
        envelope = self.signed(self.next(version, ConsentEvent.WITHDRAWN))
        with self.database.transaction() as session:
            change = changes.withdraw(session, envelope, vault_id=self.owner.vault, now=NOW)
        short_key_store.delete_scheduled(self.database, self.shortkeys)
        return change


@dataclass(frozen=True)
class Spending:
    """What spending needs of a permit."""

    consent_id: ConsentId
    version: int
    vault_id: Any
    exposure: Addition = NOTHING
    agent: bool = False
    company_version: int = 1
    profile: Profile = field(default_factory=Profile)


def spending(world: World, version: ConsentVersion, exposure: Addition = NOTHING, *, agent: bool = False) -> Spending:
    return Spending(ConsentId(version.consent_id), version.version, world.owner.vault, exposure, agent)
