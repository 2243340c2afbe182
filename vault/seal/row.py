"""An imprint row: noisy numbers under a compartment's imprint key, signed by the worker that made them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NewType

from vault.encoding import b64u, dump_json
from vault.seal.blob import Blob, parse_blob, sign_blob
from vault.seal.dsse import PayloadType
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.framing import frames
from vault.seal.ids import CompartmentId, VaultId, sha256
from vault.seal.signing import Signer
from vault.seal.wrap import lock, unlock

MAX_ROW_BYTES: Final = 1 << 20
SUITE_NAME: Final = "cobblestone-256"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class RowHeader:
    """What a row is.

    Args:
        vault: Whose.
        compartment: Whose imprint key opens it.
        release: Hash that names the release it belongs to, 32 bytes.
        map_version: Version of the feature map.
        index: Its place in the release, from 0.
    """

    vault: VaultId
    compartment: CompartmentId
    release: bytes
    map_version: str
    index: int


@dataclass(frozen=True)
class Row:
    """A row whose signature nobody has checked yet.

    Args:
        encoded: Its bytes.
        header: What it says it is.
        blob: Header bytes, ciphertext and signature.
    """

    encoded: bytes
    header: RowHeader
    blob: Blob

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of its bytes: what the release's leaf names."""
        return sha256(self.encoded)


VerifiedRow = NewType("VerifiedRow", Row)
"""A row that `verify_row` returned."""


def seal_row(plaintext: bytes, header: RowHeader, imprint_key: bytes, worker: Signer) -> bytes:
    """Return a row's numbers under the imprint key and the worker's signature.

    Args:
        plaintext: The noisy numbers, in the feature map's encoding.
        header: What the row is.
        imprint_key: From `derive.imprint_key`.
        worker: The processor's signing key.

    Raises:
        SealError: The key has another length, or the row is larger than 1 MiB.
    """
    encoded_header = dump_json(
        {
            "v": _VERSION,
            "suite": SUITE_NAME,
            "vault": b64u(header.vault),
            "compartment": b64u(header.compartment),
            "release": b64u(header.release),
            "map": header.map_version,
            "index": header.index,
        }
    )
    ciphertext = lock(imprint_key, plaintext, _context(encoded_header))
    encoded = sign_blob(PayloadType.ROW, encoded_header, ciphertext, worker).encoded
    if len(encoded) > MAX_ROW_BYTES:
        raise SealError("An imprint row has more than 1 MiB.")
    return encoded


def parse_row(data: bytes) -> Row:
    """Parse a row; its signature is not checked.

    Raises:
        SealError: The bytes are not the one encoding of a row.
    """
    blob = parse_blob(data, MAX_ROW_BYTES)
    fields = Fields(blob.record())
    if fields.integer("v") != _VERSION or fields.text("suite") != SUITE_NAME:
        raise SealError("An imprint row has a version or suite that TwinVault does not know.")
    vault, compartment = VaultId(fields.id("vault")), CompartmentId(fields.id("compartment"))
    header = RowHeader(vault, compartment, fields.hash("release"), fields.text("map"), fields.integer("index"))
    fields.end()
    return Row(data, header, blob)


def verify_row(row: Row, *worker_keys: bytes) -> VerifiedRow:
    """Check the worker's signature; whether the row is the one asked for is the caller's to compare.

    Args:
        row: From `parse_row`.
        worker_keys: Every key that the worker may have signed with: a row outlives the key that signed it.

    Raises:
        SealError: It is by none of these keys over this row.
    """
    for worker_key in worker_keys:
        with suppress(SealError):
            row.blob.verify(PayloadType.ROW, worker_key)
            return VerifiedRow(row)
    raise SealError("The signature of this imprint row is by no key that the operator stated for the worker.")


def open_row(row: VerifiedRow, imprint_key: bytes) -> bytes:
    """Return a row's numbers.

    Raises:
        SealError: The key is not this compartment's imprint key, or the row was altered.
    """
    return unlock(imprint_key, row.blob.ciphertext, _context(row.blob.header))


def _context(header: bytes) -> bytes:
    return frames(PayloadType.ROW.encode(), header)
