"""A consent that an owner seals in advance: signed and complete, under a key that only enough executors have.

Its keys are sealed to the serving identity, as those of every consent, so executors who open it read none of them; and
nothing of it lies at the service until they send it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vault.seal.derive import derive
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.ids import VaultId
from vault.seal.wrap import lock, unlock

MAX_ADVANCE_BYTES: Final = 1 << 20
_CONTEXT: Final = b"twinvault/advance/v1"
_ENCODING: Final = "ascii"


@dataclass(frozen=True, slots=True)
class Advance:
    """Everything that a consent is given with.

    Args:
        version: Its first version, signed by the pairwise key.
        certificate: The owner's certificate of that key.
        handover: The imprint keys, sealed to the serving identity.
        request: What the company asked for, its compact JWS.
    """

    version: Envelope
    certificate: Envelope
    handover: bytes
    request: str

    @property
    def encoded(self) -> bytes:
        """The one binary encoding."""
        return frames(self.version.encoded, self.certificate.encoded, self.handover, self.request.encode(_ENCODING))


def parse_advance(data: bytes) -> Advance:
    """Read a consent sealed in advance; none of its signatures is checked.

    Raises:
        SealError: It is none.
    """
    reader = Reader(data, MAX_ADVANCE_BYTES)
    version, certificate, handover, request = (reader.frame() for _ in range(4))
    reader.end()
    try:
        text = request.decode(_ENCODING)
    except UnicodeDecodeError as error:
        raise SealError("A consent sealed in advance holds a request that is no text.") from error
    return Advance(parse_envelope(version), parse_envelope(certificate), handover, text)


def lock_advance(advance: Advance, secret: bytes, vault: VaultId) -> bytes:
    """Lock it under the secret that the executors share.

    Args:
        advance: What to lock.
        secret: 32 random bytes.
        vault: Whose.
    """
    return lock(_key(secret), advance.encoded, frames(_CONTEXT, vault))


def unlock_advance(locked: bytes, secret: bytes, vault: VaultId) -> Advance:
    """Undo `lock_advance`.

    Args:
        locked: What the executors were handed.
        secret: Of the legacy key, put together from shares, 32 bytes.
        vault: Whose plan it is of.

    Raises:
        SealError: Another secret or vault, or altered.
    """
    return parse_advance(unlock(_key(secret), locked, frames(_CONTEXT, vault)))


def _key(secret: bytes) -> bytes:
    return derive(secret, "legacy-advance")
