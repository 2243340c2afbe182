"""An owner's succession: the next key, from the recovery kit, replaces the owner key, and with it all that the former one opens.

Whoever holds the former key may be a thief, so nothing that it signs counts: the next key's signature is the proof. Owner
key, account record and slots change in one transaction; the caller publishes the ring head, signed by the new key, in the
same one.

Source: DESIGN section 3; docs/adr/0031.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select

from vault.errors import VaultError
from vault.parties import people, sessions
from vault.parties.models import PersonRecordRow, split_keys
from vault.proof.leaf import LeafKind
from vault.seal.dsse import Envelope, parse_envelope, unverified_record
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.framing import Reader, frames
from vault.seal.ids import VaultId
from vault.seal.person import Succession, verify_succession
from vault.seal.slot import Slot, parse_slot
from vault.store import accounts, slots
from vault.store.errors import AlreadyStored
from vault.tlog.log import Pending, PendingId

MAX_FORMER_KEYS: Final = 256
_MAX_BYTES: Final = 1 << 20


class TooManySuccessions(VaultError):
    """A vault whose owner key was replaced as often as it may be; whoever reads its ring reads all of them."""

    slug = "too-many-successions"
    title = "Too many successions"
    status = 409


class SuccessionRefused(VaultError):
    """A succession that replaces no key here; whether the vault exists is not said."""

    slug = "succession-refused"
    title = "Succession refused"
    status = 403


@dataclass(frozen=True, slots=True)
class Replacement:
    """What takes the place of the owner key and of what it opened.

    Args:
        succession: Signed by the next key.
        account: The account record under the new key; None in a journal whose next succession brings one.
        slots: All that open the vault from now on.
    """

    succession: Envelope
    account: Envelope | None
    slots: tuple[Slot, ...]

    def dump(self) -> bytes:
        """Return the bytes that the journal keeps."""
        account = b"" if self.account is None else self.account.encoded
        return frames(self.succession.encoded, account, *(slot.encoded for slot in self.slots))


def parse_replacement(data: bytes) -> Replacement:
    """Undo `Replacement.dump`; no signature is checked.

    Raises:
        SealError: They are other bytes.
    """
    reader = Reader(data, _MAX_BYTES)
    succession, account = parse_envelope(reader.frame()), reader.frame()
    found = []
    while reader.left_bytes:
        found.append(parse_slot(reader.frame()))
    return Replacement(succession, parse_envelope(account) if account else None, tuple(found))


def verify_next(session: Session, vault_id: VaultId, envelope: Envelope) -> Succession:
    """Return a succession that may take effect now; everything else about the request is looked at after this.

    Raises:
        SuccessionRefused: Not by the key that this vault's newest record committed to, or not following it; or there
            is no such vault.
    """
    person = people.find(session, vault_id)
    try:
        return verify_succession(
            envelope,
            vault_id=vault_id,
            prev=person.identity_digest if person else b"",
            next_owner_key_hash=person.next_owner_key_hash if person else b"",
        )
    except SealError as error:
        raise SuccessionRefused(
            "The succession is not by the key that the vault's newest record committed to, or does not follow that"
            " record; sign it with the newest recovery kit."
        ) from error


def succeed(session: Session, vault_id: VaultId, new: Replacement, *, now: datetime) -> Pending:
    """Replace owner key, account record and slots, and end all sessions; writes the rows and their leaves.

    Args:
        session: An open writing transaction, in which the caller also publishes a ring head of the new key.
        vault_id: The vault.
        new: What takes their place.
        now: The current time.

    Returns:
        The leaf, to wait for.

    Raises:
        SuccessionRefused: As `verify_next`.
        SealError: The account record is not the new key's.
        VersionConflict: Another account record was published meanwhile.
        AlreadyStored: Another vault has a slot of one of the locators.
        TooManySuccessions: 256 came before.

    Guarantees: when this has committed, no session that the former key opened is live or begins, and no slot from
        before opens the vault.
    """
    owner_key, pending = _replace_key(session, vault_id, new.succession, now)
    assert new.account is not None
    accounts.publish(session, vault_id, owner_key, new.account, now=now)
    slots.put_only(session, vault_id, new.slots)
    return pending


def repeat(session: Session, kept: bytes, *, now: datetime) -> bool:
    """Put a succession in force again that a restored database forgot; safe to repeat.

    The ring stays as the backup has it, under the former key, and so counts for nobody until its owner signs another.

    Args:
        session: An open writing transaction.
        kept: From `journaled`.
        now: The current time.

    Returns:
        Whether it was followed; not if the succession is known, if the vault came after the backup, or if it was erased
        and began again since, which is the only way in which one before this can be lacking.

    Raises:
        SealError: It is damaged.
    """
    new = parse_replacement(kept)
    vault_id = VaultId(Fields(unverified_record(new.succession)).id("vault"))
    try:
        owner_key, _ = _replace_key(session, vault_id, new.succession, now)
    except SuccessionRefused:  # known, or no such vault: it does not follow either
        return False
    if new.account is not None:
        accounts.put_again(session, vault_id, owner_key, new.account, now=now)
        slots.forget(session, vault_id)
        for one in new.slots:
            with suppress(AlreadyStored):  # another vault of the backup has it, and must not hold up who restores
                slots.put(session, vault_id, one)
    return True


def journaled(session: Session, pending_ids: Iterable[PendingId]) -> dict[PendingId, bytes]:
    """Return what the journal keeps of successions, by their leaves: what their owners open the vault by as well."""
    found = {}
    for leaf_id, encoded in people.envelopes(session, pending_ids).items():
        succession = parse_envelope(encoded)
        vault_id = VaultId(Fields(unverified_record(succession)).id("vault"))
        stored = accounts.find(session, vault_id)
        if stored is None:  # the vault may be erased between two of these lines
            continue
        account = parse_envelope(stored)
        if account.signatures[0][0] != succession.signatures[0][0]:  # another one has followed already
            found[leaf_id] = Replacement(succession, None, ()).dump()
        else:
            kept = tuple(map(parse_slot, slots.every(session, vault_id)))
            found[leaf_id] = Replacement(succession, account, kept).dump()
    return found


def identity(session: Session, vault_id: VaultId) -> list[bytes]:
    """Return the signed records from which the owner's keys follow: genesis, then successions."""
    mine = (col(PersonRecordRow.vault_id) == vault_id, col(PersonRecordRow.identity).is_(True))
    return list(session.exec(select(PersonRecordRow.envelope).where(*mine).order_by(col(PersonRecordRow.pending_id))))


def find(session: Session, vault_id: VaultId, envelope: Envelope) -> PendingId | None:
    """Return the leaf of a succession that took effect here; None of any other."""
    mine = (col(PersonRecordRow.vault_id) == vault_id, col(PersonRecordRow.identity).is_(True))
    known = select(PersonRecordRow.pending_id).where(*mine, col(PersonRecordRow.envelope) == envelope.encoded)
    leaf_id = session.exec(known.order_by(col(PersonRecordRow.pending_id)).limit(1)).first()
    return None if leaf_id is None else PendingId(leaf_id)


def _replace_key(session: Session, vault_id: VaultId, envelope: Envelope, now: datetime) -> tuple[bytes, Pending]:
    people.lock(session, vault_id)
    succession = verify_next(session, vault_id, envelope)
    row = people.locked(session, vault_id)
    if len(split_keys(row.former_owner_keys)) >= MAX_FORMER_KEYS:
        raise TooManySuccessions(f"An owner key is replaced at most {MAX_FORMER_KEYS} times; begin another vault.")
    row.former_owner_keys += row.owner_key
    row.owner_key, row.next_owner_key_hash = succession.owner_key, succession.next_owner_key_hash
    row.identity_digest = envelope.digest
    sessions.end_sessions(session, vault_id)
    return succession.owner_key, people.write_record(session, row, LeafKind.SUCCESSION, envelope, now)
