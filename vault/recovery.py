"""What a restored database lacks, taken from the journal and put in force again before anything is served.

Each kind of journaled event has one verb, its domain's own. What the database never had, such as a
consent given after the backup, cannot be brought back from an opening and is left out: nothing can happen under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.budget import ledger
from vault.budget.charge import parse_charge
from vault.consent import consents
from vault.consent.restoring import end_again, is_withdrawal
from vault.db import Database
from vault.encoding import JsonObject, b64u, parse_b64u, parse_json
from vault.erasure.erase import erase_again
from vault.evidence import auditors
from vault.legacy import legacies
from vault.oauth import authorizations, families
from vault.parties import companies, people, restoring, sessions, succession, turns
from vault.parties.companies import CompanyId, CompanyStatus
from vault.parties.people import VaultState
from vault.parties.restoring import Repeated
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.ids import ID_BYTES, DeviceId, VaultId, sha256
from vault.seal.signing import Signer
from vault.store import devices, shortkeys
from vault.tlog import log, tree
from vault.tlog.errors import JournalDamaged, JournalMissing
from vault.tlog.journal import Journal, lacking
from vault.tlog.log import Leaf, PendingId

_PERSON: Final = frozenset({LeafKind.PROFILE, LeafKind.FREEZE})
_DAMAGED: Final = "The journal holds an event about a vault without what was signed. Put the newest copy of it back."


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was put in force again.

    Args:
        lacking: How many journaled events the database had forgotten.
        consents: How many consents were ended again.
        charges: How many releases were charged again.
        erasures: How many erasures were carried out again.
        models: How many models were withdrawn again.
        people: How many freezes and profiles were followed again.
        successions: How many owner keys were replaced again.
        companies: How many companies were suspended again.
        rotated: How many companies' next records, with the keys that they name, were followed again.
        registered: Companies that were registered since; they are suspended until the operator reinstates them.
        lost: Ids of companies that were registered since and have to register again.
        devices: How many devices were revoked again.
    """

    lacking: int = 0
    consents: int = 0
    charges: int = 0
    erasures: int = 0
    models: int = 0
    people: int = 0
    successions: int = 0
    companies: int = 0
    rotated: int = 0
    registered: tuple[CompanyId, ...] = ()
    lost: tuple[CompanyId, ...] = ()
    devices: int = 0


def end_issued(session: Session, *, now: datetime) -> int:
    """End every session, token, code, request and auditor's engagement.

    Which of them were revoked or used up, a restored database has forgotten.

    Returns:
        How many engagements ended; the operator begins them again.
    """
    sessions.end_all(session, now=now)
    families.end_all(session)
    authorizations.end_all(session)
    return auditors.end_all(session, now=now)


def recover(database: Database, short_keys: Database, journal: Journal, *, service: Signer, now: datetime) -> Recovered:
    """Compare the database with the journal and apply again what it lacks; safe to run again and at any time.

    Args:
        database: The main database.
        short_keys: Database of the short keys.
        journal: There must be one.
        service: The service's signing key.
        now: The current time.

    Raises:
        JournalMissing: There is none, or it begins after the point to which the database was set back.
        JournalDamaged: It does not hold what was written into it.

    Guarantees: when this returns, every end of a consent, model or device, erasure, charge, freeze, profile, succession,
        suspension and change of a company's keys that was acknowledged, and that the journal reaches back to, is in force; and no
        token, code or session from before the database was set back counts.
    """
    with turns.needless(), database.transaction() as session:
        tree.lock(session)  # another process may be starting too, or writing the journal
        journaled = journal.read()
        missing = lacking(session, journaled)
        if missing or log.is_copy(session):
            end_issued(session, now=now)
        if not missing:
            return Recovered()
        if journaled.begins_at > log.tree_size(session):
            raise JournalMissing(
                f"The journal begins at leaf {journaled.begins_at}, but the database was set back to {log.tree_size(session)}"
                " leaves: what was withdrawn or charged between is unknown. Restore a newer backup, or put the older"
                " journal back; only if neither exists, accept the loss with `twinvault operator journal begin`."
            )
        followed, succeeded = _follow_again(session, missing, journaled.signed, now)
        repeated = _repeat_records(session, missing, journaled.signed, now)
        suspended = _suspend_again(session, missing, now)
        revoked = sum(_revoke_again(session, head) for _, head in _opened(missing, LeafKind.RING_HEAD))
        ends = [
            (*_opened([leaf], LeafKind.CONSENT)[0], journaled.signed.get(leaf.entry, b""))
            for leaf in missing
            if leaf.kind is LeafKind.CONSENT and leaf.personal is not None
        ]
        ended = end_again(session, ends, service=service, now=now)
        # A release whose opening was erased before the log took it cannot be charged from here.
        charges = [
            parse_charge(personal["charge"])  # type: ignore[arg-type]  # it refuses what is no object
            for _, personal in _opened(missing, LeafKind.RELEASE, LeafKind.TRAINING)
        ]
        charged = sum(ledger.restore(session, charge, at=now) for charge in sorted(charges, key=lambda c: c.scope.key))
        erasures = _opened(missing, LeafKind.ERASURE, LeafKind.RETENTION)
        erased = sum(erase_again(session, short_keys, *halves, also=(legacies.forget,)) for halves in erasures)
        plans = _opened(missing, LeafKind.LEGACY_PLAN, LeafKind.LEGACY_VETO)
        legacies.end_again(session, {VaultId(parse_b64u(personal["vault"])) for _, personal in plans}, now=now)
        stopped = sum(_stop_again(session, public, now) for public, _ in _opened(missing, LeafKind.MODEL_WITHDRAWN))
        journal.mark(session)
        if erasures:  # whoever was to forget them may have died, and what is lacking here is found in no database
            journal.call_due()
    shortkeys.delete_scheduled(database, short_keys)
    rotated = sum(became is Repeated.FOLLOWED for _, became in repeated)
    registered, lost = (
        tuple(dict.fromkeys(company for company, became in repeated if became is wanted))
        for wanted in (Repeated.REGISTERED, Repeated.LOST)
    )
    return Recovered(
        lacking=len(missing),
        consents=len(ended),
        charges=charged,
        erasures=erased,
        models=stopped,
        people=followed,
        successions=succeeded,
        companies=suspended,
        rotated=rotated,
        registered=registered,
        lost=lost,
        devices=revoked,
    )


def signed_records(session: Session, leaves: Sequence[Leaf]) -> dict[PendingId, bytes]:
    """Return what the journal keeps beside events.

    That is what a person signed to withdraw a consent or about themselves, companies' records, and with a succession
    the account record and the slots, without which the new owner key is nobody's.
    """
    about_people = [leaf.pending_id for leaf in leaves if leaf.kind in _PERSON]
    withdrawals = [
        leaf.pending_id
        for leaf in leaves
        if leaf.kind is LeafKind.CONSENT and is_withdrawal(parse_json(leaf.public.body))
    ]
    found = people.envelopes(session, about_people) if about_people else {}
    successions = [leaf.pending_id for leaf in leaves if leaf.kind is LeafKind.SUCCESSION]
    found |= succession.journaled(session, successions) if successions else {}
    found |= restoring.records(session, [leaf for leaf in leaves if leaf.kind is LeafKind.COMPANY])
    return found | (consents.envelopes(session, withdrawals) if withdrawals else {})


def _follow_again(
    session: Session, leaves: Iterable[Leaf], signed: Mapping[bytes, bytes], now: datetime
) -> tuple[int, int]:
    """Follow what was signed about people; return how many freezes and profiles, and how many successions."""
    opened = [
        (leaf, verify_opening(leaf.entry, Part.PERSONAL, leaf.personal))
        for leaf in leaves
        if leaf.kind in {*_PERSON, LeafKind.SUCCESSION} and leaf.personal is not None
    ]
    # Whoever gave a sign of life after it was said is not said to have died again.
    last = {personal["vault"]: leaf for leaf, personal in opened if "deceased" in personal}
    followed = succeeded = 0
    for leaf, personal in opened:
        if leaf.kind is LeafKind.SUCCESSION:  # in its turn: what follows may be signed by the new key
            try:
                succeeded += succession.repeat(session, signed.get(leaf.entry, b""), now=now)
            except SealError as error:
                raise JournalDamaged(_DAMAGED) from error
            continue
        try:
            envelope = parse_envelope(signed.get(leaf.entry, b""))
        except SealError as error:
            raise JournalDamaged(_DAMAGED) from error
        died = personal.get("deceased") == 1 and last[personal["vault"]] is leaf
        vault_id = VaultId(parse_b64u(personal.get("vault"), size=ID_BYTES))
        forbids = died or personal.get("frozen") == 1
        before = people.find(session, vault_id)
        if people.repeat(session, vault_id, leaf.kind, envelope, forbids=forbids, now=now):
            followed += 1
            if before is not None and before.state is VaultState.ACTIVE:
                legacies.remember_freeze(session, vault_id, envelope)
    return followed, succeeded


def _repeat_records(
    session: Session, leaves: Iterable[Leaf], signed: Mapping[bytes, bytes], now: datetime
) -> list[tuple[CompanyId, Repeated]]:
    repeated = []
    for leaf in leaves:
        if leaf.kind is LeafKind.COMPANY:
            public = verify_opening(leaf.entry, Part.PUBLIC, leaf.public)
            company_id, version = CompanyId(str(public["company"])), int(str(public["version"]))
            record = signed.get(leaf.entry, b"")
            if b64u(sha256(record)) != public["record_sha256"]:
                record = b""
            repeated.append((company_id, restoring.repeat(session, company_id, version, record, now=now)))
    return repeated


def _suspend_again(session: Session, leaves: Iterable[Leaf], now: datetime) -> int:
    last = {str(public["company"]): public["status"] for public, _ in _opened(leaves, LeafKind.COMPANY_STATUS)}
    again = 0
    for company_id, status in last.items():
        # Nobody signed for a reinstatement, so none comes out of a file: the operator repeats it.
        company = companies.find(session, company_id) if status == CompanyStatus.SUSPENDED else None
        if company is not None and company.status is CompanyStatus.ACTIVE:
            companies.set_status(session, company.company_id, CompanyStatus.SUSPENDED, now=now)
            again += 1
    return again


def _revoke_again(session: Session, head: JsonObject) -> int:
    revoked = head.get("revoked", [])
    assert isinstance(revoked, list)
    names = [DeviceId(parse_b64u(name, size=ID_BYTES)) for name in revoked]
    return devices.revoke_again(session, VaultId(parse_b64u(head["vault"], size=ID_BYTES)), names)


def _stop_again(session: Session, public: JsonObject, now: datetime) -> bool:
    from vault.twin import release  # noqa: PLC0415  it brings torch, which takes every operator's command seconds to load

    with suppress(release.NoCertifiedModel):  # released after the backup, so nothing answers by it
        return release.withdraw(session, parse_b64u(public["model"]), str(public["reason"]), now=now) is not None
    return False


def _opened(leaves: Iterable[Leaf], *kinds: LeafKind) -> list[tuple[JsonObject, JsonObject]]:
    return [
        (verify_opening(leaf.entry, Part.PUBLIC, leaf.public), verify_opening(leaf.entry, Part.PERSONAL, leaf.personal))
        for leaf in leaves
        if leaf.kind in kinds and leaf.personal is not None
    ]
