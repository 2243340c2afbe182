"""The service's keys, as the pinned operator key vouches for them. No other key is ever sealed to or believed."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

from twinvault.api import Api, ClientError, field
from twinvault.profile import Profile
from vault.clock import Clock, unix_s
from vault.encoding import parse_b64u
from vault.proof.trust import TrustedRoot
from vault.seal.dsse import parse_envelope
from vault.seal.ids import key_id, sha256
from vault.seal.recipient import Recipient
from vault.seal.statement import KeyName, KeyStatement, verify_key_statement
from vault.seal.version import Remembered

KEPT_S: Final = 30.0
"""How long the statements seen last are used: a new epoch may be missed for as long, never a `not_before`."""

_MOST_STATEMENTS: Final = 256


class Pinning(Protocol):
    """Whoever pinned the operator's key: a profile, or an executor's share."""

    @property
    def trust(self) -> TrustedRoot:
        """The pinned keys."""


class NoKey(ClientError):
    """The operator vouches for no key of the name that is needed."""

    slug = "no-key"
    title = "No key of the service"


def key_statements(api: Api, profile: Pinning, *, at_most_s: float = KEPT_S) -> list[KeyStatement]:
    """Return every key that the service shows, each checked against the pinned operator key.

    Args:
        api: The service.
        profile: Pins the operator key.
        at_most_s: How old what it showed may be.

    Raises:
        SealError: One of them is not signed by the pinned operator: the service or someone between
            tried to put a key of their own in.
        ApiError: The service refuses.
    """
    return [_verified(item, profile.trust.operator) for item in _shown(api, at_most_s)]


def sealing_key(api: Api, profile: Profile, name: KeyName, clock: Clock, *, at_most_s: float = KEPT_S) -> Recipient:
    """Return the key in force that handovers are sealed to.

    Args:
        api: The service.
        profile: Pins the operator key and remembers the newest epoch.
        name: `KeyName.PROCESSOR` or `KeyName.SERVING`.
        clock: Tells which epoch is in force.
        at_most_s: How old what the service showed may be.

    Raises:
        SealError: A statement that the operator did not sign.
        NoKey: The operator vouches for none.
        RolledBack: An older epoch than this client has seen, or another key of the same one.
    """
    return Recipient(_newest(api, profile, name, clock, at_most_s).public_key)


def replaced_at(api: Api, profile: Profile, name: KeyName, clock: Clock) -> int:
    """Return the unix second at which the key in force replaced another, to which was sealed before; 0 if it is the first.

    Raises:
        SealError: A statement that the operator did not sign.
        NoKey: The operator vouches for none.
        RolledBack: An older epoch than this client has seen, or another key of the same one.
    """
    newest = _newest(api, profile, name, clock, 0)
    return newest.not_before if newest.epoch > 1 else 0


def signing_key(api: Api, profile: Pinning, name: KeyName, key: bytes, clock: Clock) -> bytes | None:
    """Return the key that a signature names, if the operator vouches that it may have signed by now.

    Args:
        api: The service.
        profile: Pins the operator key.
        name: What the key is for.
        key: Id of the key, as the signature names it; of any epoch.
        clock: Tells which epochs have begun.

    Raises:
        SealError: A statement that the operator did not sign.
    """
    for at_most_s in (KEPT_S, 0):  # a key that is not among those seen lately may be a new one
        for statement in _in_force(key_statements(api, profile, at_most_s=at_most_s), name, clock):
            if key_id(statement.public_key) == key:
                return statement.public_key
    return None


def statement_of(api: Api, profile: Profile, public_key: bytes) -> str:
    """Return the operator's statement of a key as it was signed, base64url: with it others check the key offline.

    Raises:
        SealError: A statement that the operator did not sign.
        NoKey: The operator vouches for no such key.
    """
    for item in _shown(api, KEPT_S):
        if _verified(item, profile.trust.operator).public_key == public_key:
            return item
    raise NoKey("The operator vouches for no such key; ask the operator.")


def _newest(api: Api, profile: Profile, name: KeyName, clock: Clock, at_most_s: float) -> KeyStatement:
    in_force = _in_force(key_statements(api, profile, at_most_s=at_most_s), name, clock)
    if not in_force:
        raise NoKey(f"The operator vouches for no {name} key that is in force; ask the operator.")
    newest = max(in_force, key=lambda statement: statement.epoch)
    profile.remember(f"key/{name}", Remembered(newest.epoch, sha256(newest.public_key)))
    return newest


def _shown(api: Api, at_most_s: float) -> list[str]:
    return [str(item) for item in field(api.get_kept("/v1/keys", at_most_s=at_most_s), "statements", list)]


@lru_cache(maxsize=_MOST_STATEMENTS)
def _verified(statement: str, operator: bytes) -> KeyStatement:
    """Verify a signature once: whether the same key signed the same bytes never changes."""
    return verify_key_statement(parse_envelope(parse_b64u(statement)), operator)


def _in_force(statements: list[KeyStatement], name: KeyName, clock: Clock) -> list[KeyStatement]:
    now_s = unix_s(clock.now())
    return [item for item in statements if item.name is name and item.not_before <= now_s]
