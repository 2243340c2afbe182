"""Sign-in by challenge: an owner or a device proves its key and gets a short session.

A challenge is its own record: expiry, randomness and a MAC over both under a secret that the
server's processes share. Nothing is stored until somebody answers it rightly, so asking for
challenges fills no table.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlmodel import Session, col, delete, select

from vault.clock import unix_s
from vault.encoding import b64u, parse_b64u
from vault.errors import MalformedInput, VaultError
from vault.parties import people
from vault.parties.caller import DeviceCaller, Insider, OwnerCaller, WatcherCaller
from vault.parties.models import PersonRow, RestoredRow, SessionRow
from vault.parties.once import spend
from vault.seal.dsse import Envelope, PayloadType, unverified_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.ids import DeviceId, VaultId
from vault.seal.person import NONCE_BYTES, Role, SignIn, parse_sign_in

CHALLENGE_S: Final = 120
SESSION_S: Final = 900
_TOKEN_BYTES: Final = 32
_EXPIRY_BYTES: Final = 4
_RANDOM_BYTES: Final = 12
_SWEEP: Final = 8
# Verified against where no key exists, so that an unknown vault costs what a wrong key costs.
_NOBODY: Final = Ed25519PrivateKey.generate().public_key().public_bytes_raw()

DeviceKeys = Callable[[Session, VaultId, DeviceId], bytes | None]
"""Returns a device's Ed25519 public key if the vault's newest ring lists it and has not revoked it."""

SignOfLife = Callable[[Session, VaultId, Envelope, datetime], None]
"""Takes note, in the transaction that opens an owner's session, that the owner is alive."""


class SignInRefused(VaultError):
    """An answer to a challenge that does not sign anybody in; it never says why in detail."""

    slug = "sign-in-refused"
    title = "Sign-in refused"
    status = 401


class NotSignedIn(VaultError):
    """A request without a live session of the role its route needs."""

    slug = "not-signed-in"
    title = "Not signed in"
    status = 401
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012  (fixed, never written to)


@dataclass(frozen=True)
class SignInDesk:
    """What every process of one server shares to sign parties in.

    Args:
        origin: The issuer URL; answers made for another server are refused.
        secret: At least 32 random bytes, the same in every process.
        device_keys: Finds a device's key in its vault's ring.
        alive: Is told of every owner who signs in; devices and watchers sign in without their owner too.
    """

    origin: str
    secret: bytes
    device_keys: DeviceKeys
    alive: SignOfLife = lambda *_: None

    def challenge(self, vault_id: VaultId, role: Role, *, now: datetime) -> bytes:
        """Return 32 bytes to sign, good for two minutes, once, for this vault and role.

        The answer is the same whether or not the vault exists.
        """
        expiry = (unix_s(now) + CHALLENGE_S).to_bytes(_EXPIRY_BYTES, "big")
        head = expiry + secrets.token_bytes(_RANDOM_BYTES)
        return head + self._mac(head, vault_id, role)

    def sign_in(self, session: Session, envelope: Envelope, *, now: datetime) -> str:
        """Open a session.

        Args:
            session: An open writing transaction.
            envelope: The signed answer.
            now: The current time.

        Returns:
            The session token, 43 characters; only its SHA-256 is kept.

        Raises:
            SignInRefused: Another server's or vault's challenge, one that is too old or was
                answered before, an unknown vault, a revoked device or a wrong signature.
        """
        try:
            answer = parse_sign_in(unverified_record(envelope))
            key = self._key(session, answer)
            verify_envelope(envelope, PayloadType.SIGN_IN, key or _NOBODY)
        except SealError as error:
            raise _refusal() from error
        fresh = self._is_fresh(answer, now)
        expires_at_s = int.from_bytes(answer.nonce[:_EXPIRY_BYTES], "big")
        if key is None or not fresh or not spend(session, b"sign-in", answer.nonce, expires_at_s=expires_at_s, now=now):
            raise _refusal()
        # A succession ends all sessions, and a sign of life a declaration: what commits meanwhile is seen.
        if answer.device_id is None:
            people.lock(session, answer.vault_id)
            if self._key(session, answer) != key:
                raise _refusal()
        token = secrets.token_bytes(_TOKEN_BYTES)
        session.add(
            SessionRow(
                token_hash=hashlib.sha256(token).digest(),
                vault_id=answer.vault_id,
                device_id=answer.device_id,
                watching=answer.role is Role.WATCHER,
                expires_at=now + timedelta(seconds=SESSION_S),
            )
        )
        _sweep(session, now)
        session.flush()
        if answer.role is Role.OWNER:
            self.alive(session, answer.vault_id, envelope, now)
        return b64u(token)

    def _key(self, session: Session, answer: SignIn) -> bytes | None:
        if answer.device_id is not None:
            return self.device_keys(session, answer.vault_id, answer.device_id)
        return session.exec(select(PersonRow.owner_key).where(col(PersonRow.vault_id) == answer.vault_id)).one_or_none()

    def _is_fresh(self, answer: SignIn, now: datetime) -> bool:
        head, mac = answer.nonce[: _EXPIRY_BYTES + _RANDOM_BYTES], answer.nonce[_EXPIRY_BYTES + _RANDOM_BYTES :]
        ours = hmac.compare_digest(mac, self._mac(head, answer.vault_id, answer.role))
        left_s = int.from_bytes(head[:_EXPIRY_BYTES], "big") - unix_s(now)
        return ours and 0 < left_s <= CHALLENGE_S and answer.origin == self.origin

    def _mac(self, head: bytes, vault_id: VaultId, role: Role) -> bytes:
        message = b"twinvault/challenge/v1\n" + head + vault_id + role.encode()
        return hmac.digest(self.secret, message, "sha256")[: NONCE_BYTES - len(head)]


def find_caller(session: Session, unverified_token: str, *, now: datetime) -> Insider:
    """Return who speaks in a session.

    Args:
        session: Any open transaction; one query.
        unverified_token: As the request carried it.
        now: The current time.

    Raises:
        NotSignedIn: No such session, or it has ended.
    """
    try:
        token = parse_b64u(unverified_token, size=_TOKEN_BYTES)
    except MalformedInput as error:
        raise NotSignedIn("The session token is malformed; sign in again.") from error
    row = session.exec(
        select(SessionRow.vault_id, SessionRow.device_id, SessionRow.watching).where(
            col(SessionRow.token_hash) == hashlib.sha256(token).digest(), col(SessionRow.expires_at) > now
        )
    ).one_or_none()
    if row is None:
        raise NotSignedIn("The session has ended; sign in again.")
    vault_id, device_id, watching = row
    if device_id is not None:
        return DeviceCaller(VaultId(vault_id), DeviceId(device_id))
    return WatcherCaller(VaultId(vault_id)) if watching else OwnerCaller(VaultId(vault_id))


def is_owner_here(session: Session, vault_id: VaultId, *, now: datetime) -> bool:
    """Say whether a session of the owner is open; whoever decides by it has locked the person."""
    live = select(SessionRow.token_hash).where(
        col(SessionRow.vault_id) == vault_id,
        col(SessionRow.device_id).is_(None),
        col(SessionRow.watching).is_(False),
        col(SessionRow.expires_at) > now,
    )
    return session.exec(live.limit(1)).first() is not None


def end_sessions(session: Session, vault_id: VaultId, device_id: DeviceId | None = None) -> None:
    """End every session of a vault, or of one of its devices when the ring revokes it."""
    ended = delete(SessionRow).where(col(SessionRow.vault_id) == vault_id)
    session.execute(ended if device_id is None else ended.where(col(SessionRow.device_id) == device_id))


def end_all(session: Session, *, now: datetime) -> None:
    """End every session, and note that the database was set back: nothing signed or issued before counts any more.

    Which of it was revoked, rotated or used up since, a restored database has forgotten.
    """
    session.execute(delete(SessionRow))
    session.merge(RestoredRow(id=1, at_s=unix_s(now)))
    session.flush()


def restored_at_s(session: Session) -> int:
    """Return the unix second at which the database was last set back; 0 if it never was."""
    return session.exec(select(RestoredRow.at_s)).one_or_none() or 0


def _refusal() -> SignInRefused:
    return SignInRefused("The challenge was not answered rightly; ask for a new one and sign it with the current key.")


def _sweep(session: Session, now: datetime) -> None:
    expired = select(SessionRow.token_hash).where(col(SessionRow.expires_at) <= now).limit(_SWEEP)
    session.execute(
        sqlalchemy.delete(SessionRow)
        .where(col(SessionRow.token_hash).in_(expired.with_for_update(skip_locked=True)))
        .execution_options(synchronize_session=False)
    )
