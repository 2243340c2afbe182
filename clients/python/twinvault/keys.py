"""The service's keys, as the pinned operator key vouches for them. No other key is ever sealed to or believed."""

from __future__ import annotations

from twinvault.api import Api, ClientError, field
from twinvault.profile import Profile
from vault.clock import Clock, unix_s
from vault.encoding import parse_b64u
from vault.seal.dsse import parse_envelope
from vault.seal.ids import sha256
from vault.seal.recipient import Recipient
from vault.seal.statement import KeyName, KeyStatement, verify_key_statement
from vault.seal.version import Remembered


class NoKey(ClientError):
    """The operator vouches for no key of the name that is needed."""

    slug = "no-key"
    title = "No key of the service"


def key_statements(api: Api, profile: Profile) -> list[KeyStatement]:
    """Return every key that the service shows, each checked against the pinned operator key.

    Raises:
        SealError: One of them is not signed by the pinned operator: the service or someone between
            tried to put a key of their own in.
        ApiError: The service refuses.
    """
    shown = field(api.get("/v1/keys"), "statements", list)
    return [verify_key_statement(parse_envelope(parse_b64u(item)), profile.trust.operator) for item in shown]


def sealing_key(api: Api, profile: Profile, name: KeyName, clock: Clock) -> Recipient:
    """Return the key in force that handovers are sealed to.

    Args:
        api: The service.
        profile: Pins the operator key and remembers the newest epoch.
        name: `KeyName.PROCESSOR` or `KeyName.SERVING`.
        clock: Tells which epoch is in force.

    Raises:
        SealError: A statement that the operator did not sign.
        NoKey: The operator vouches for none.
        RolledBack: An older epoch than this client has seen, or another key of the same one.
    """
    in_force = _in_force(key_statements(api, profile), name, clock)
    if not in_force:
        raise NoKey(f"The operator vouches for no {name} key that is in force; ask the operator.")
    newest = max(in_force, key=lambda statement: statement.epoch)
    profile.remember(f"key/{name}", Remembered(newest.epoch, sha256(newest.public_key)))
    return Recipient(newest.public_key)


def signing_keys(api: Api, profile: Profile, name: KeyName, clock: Clock) -> list[bytes]:
    """Return the keys of a name that may have signed by now, older epochs included.

    Raises:
        SealError: A statement that the operator did not sign.
    """
    return [statement.public_key for statement in _in_force(key_statements(api, profile), name, clock)]


def _in_force(statements: list[KeyStatement], name: KeyName, clock: Clock) -> list[KeyStatement]:
    now_s = unix_s(clock.now())
    return [item for item in statements if item.name is name and item.not_before <= now_s]
