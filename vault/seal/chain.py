"""A handover as it is kept: the newest reseal, and the signed records through which it descends from the owner's.

A link of the chain keeps its signature but not its ciphertext: keys that a reseal left out, or that
were sealed to an identity since destroyed, are in no byte of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.handover import (
    MAX_HANDOVER_BYTES,
    Handover,
    VerifiedHandover,
    parse_handover,
    parse_link,
    verify_handover,
    verify_reseal,
)
from vault.seal.ids import VaultId, key_id

MAX_LINKS: Final = 64
"""How often keys are resealed before their owner has to renew the consent."""

_MAX_BYTES: Final = 32 << 20
_NEVER_STATED: Final = "A reseal is signed by a key that the operator never stated for it."


@dataclass(frozen=True, slots=True)
class Chain:
    """A handover with its history.

    Args:
        links: The owner's handover and every reseal before the newest, oldest first; empty for one never resealed.
        newest: What can be opened.
    """

    links: tuple[Envelope, ...]
    newest: Handover

    @property
    def encoded(self) -> bytes:
        """The one binary encoding."""
        return frames(frames(*(link.encoded for link in self.links)), self.newest.encoded)

    @property
    def envelopes(self) -> tuple[Envelope, ...]:
        """All signed records, the owner's first."""
        return (*self.links, self.newest.envelope)

    def then(self, resealed: Handover) -> Chain:
        """Return the chain with a reseal of its newest at the end."""
        return Chain(self.envelopes, resealed)


def parse_chain(data: bytes) -> Chain:
    """Parse a chain; nothing in it is verified.

    Raises:
        SealError: The bytes are not the one encoding of one, or it has too many links.
    """
    reader = Reader(data, _MAX_BYTES)
    past, newest = reader.frame(), parse_handover(reader.frame())
    reader.end()
    links, parts = [], Reader(past, MAX_LINKS * MAX_HANDOVER_BYTES)
    while parts.left_bytes:
        links.append(parse_envelope(parts.frame()))
    if len(links) > MAX_LINKS:
        raise SealError("A handover was resealed too often; its owner has to renew the consent.")
    return Chain(tuple(links), newest)


def verify_chain(
    chain: Chain, vault: VaultId, owner_keys: Collection[bytes], resealers: Collection[bytes]
) -> VerifiedHandover:
    """Return the newest handover if it descends from the owner's without a break.

    Args:
        chain: What is kept.
        vault: Whose.
        owner_keys: Every signing key that the owner has had: what was handed over before a succession stays so.
        resealers: Every key that the operator stated for reseals of this kind of keys.

    Raises:
        SealError: The first record is not the owner's, or a later one is signed by another key, carries other
            terms on, or follows another record.
    """
    return verify_envelopes(chain.links, chain.newest, vault, owner_keys, resealers)


def verify_envelopes(
    links: tuple[Envelope, ...],
    newest: Handover,
    vault: VaultId,
    owner_keys: Collection[bytes],
    resealers: Collection[bytes],
) -> VerifiedHandover:
    """Verify a chain whose newest ciphertext the caller may not have; see `verify_chain`."""
    first, *later = [*map(parse_link, links), newest]
    owner_key = _signer(first.envelope, owner_keys, "A handover is signed by a key that was never its owner's.")
    verified = verify_handover(first, vault, owner_key)
    for item in later:
        verified = verify_reseal(item, verified, _signer(item.envelope, resealers, _NEVER_STATED))
    return verified


def _signer(envelope: Envelope, keys: Collection[bytes], refusal: str) -> bytes:
    for key in keys:
        if key_id(key) == envelope.signatures[0][0]:
            return key
    raise SealError(refusal)
