"""A batch: traces of one device sealed to one compartment, chained to the batch before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NewType

from vault.encoding import JsonObject, b64u, dump_json
from vault.schema.category import Category
from vault.schema.trace import Trace
from vault.seal.blob import Blob, parse_blob, sign_blob
from vault.seal.columns import pack_traces, unpack_traces
from vault.seal.device import ChainHead
from vault.seal.dsse import PayloadType
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.framing import frames
from vault.seal.ids import CompartmentId, DeviceId, VaultId, key_id, sha256
from vault.seal.recipient import SUITE_NAME, Opener
from vault.seal.ring import Compartment
from vault.seal.signing import Signer

MAX_BATCH_BYTES: Final = 16 << 20
_VERSION: Final = 1
_NO_BATCH: Final = ChainHead(0, bytes(32))


@dataclass(frozen=True)
class Batch:
    """A batch whose signature and chain nobody has checked yet.

    Args:
        encoded: Its bytes.
        vault: Whose it says it is.
        compartment: What it says it is sealed to.
        key_hash: SHA-256 of the compartment's public key.
        device: Who says it sealed it.
        seq: Its number in the chain of (device, compartment), from 1.
        prev: SHA-256 of the batch before, zeros for the first.
        blob: Header, ciphertext and signature.
    """

    encoded: bytes
    vault: VaultId
    compartment: CompartmentId
    key_hash: bytes
    device: DeviceId
    seq: int
    prev: bytes
    blob: Blob

    @cached_property
    def head(self) -> ChainHead:
        """The chain head that this batch makes."""
        return ChainHead(self.seq, sha256(self.encoded))


VerifiedBatch = NewType("VerifiedBatch", Batch)
"""A batch that `verify_batch` returned: HPKE authenticates nobody, so only such a one is opened."""


def seal_batch(
    traces: Sequence[Trace], vault: VaultId, compartment: Compartment, device: Signer, after: ChainHead | None
) -> bytes:
    """Return the traces sealed to a compartment.

    Args:
        traces: 1 to 65,536, all of the compartment's category.
        vault: Whose.
        compartment: From the verified ring.
        device: The device's signing key.
        after: Head of the chain of this device in this compartment, or None for its first batch.

    Raises:
        SealError: A trace of another category, or more than a batch holds.

    Guarantees:
        Only the holder of the compartment's seed reads a trace; the server sees the header and a
        padded length.
    """
    if any(trace.category != compartment.category for trace in traces):
        raise SealError("A trace is not of the compartment's category.")
    last = after or _NO_BATCH
    record: JsonObject = {
        "v": _VERSION,
        "suite": SUITE_NAME,
        "vault": b64u(vault),
        "compartment": b64u(compartment.id),
        "key": b64u(compartment.recipient.key_hash),
        "device": b64u(key_id(device.public_key)),
        "seq": last.seq + 1,
        "prev": b64u(last.digest),
    }
    header = dump_json(record)
    ciphertext = compartment.recipient.seal(pack_traces(traces), _info(header))
    encoded = sign_blob(PayloadType.BATCH, header, ciphertext, device).encoded
    if len(encoded) > MAX_BATCH_BYTES:
        raise SealError("A batch has more than 16 MiB; split it.")
    return encoded


def parse_batch(data: bytes) -> Batch:
    """Parse a batch; its signature and chain are not checked.

    Raises:
        SealError: The bytes are not the one encoding of a batch.
    """
    blob = parse_blob(data, MAX_BATCH_BYTES)
    fields = Fields(blob.record())
    if fields.integer("v") != _VERSION or fields.text("suite") != SUITE_NAME:
        raise SealError("A batch has a version or suite that TwinVault does not know.")
    batch = Batch(
        data,
        VaultId(fields.id("vault")),
        CompartmentId(fields.id("compartment")),
        fields.hash("key"),
        DeviceId(fields.id("device")),
        fields.integer("seq", least=1),
        fields.hash("prev"),
        blob,
    )
    fields.end()
    return batch


def verify_batch(
    batch: Batch, vault: VaultId, key_hash: bytes, device_key: bytes, after: ChainHead | None
) -> VerifiedBatch:
    """Check that a batch is this device's next one for this compartment.

    Args:
        batch: From `parse_batch`.
        vault: The vault it arrived for.
        key_hash: SHA-256 of the public key that the ring lists for `batch.compartment`.
        device_key: The key that the ring head lists for `batch.device`.
        after: Head of the chain so far, or None if it is empty.

    Raises:
        SealError: Another vault, compartment key or device, replayed, reordered, after a dropped
            one, or altered.
    """
    if batch.vault != vault or batch.key_hash != key_hash:
        raise SealError("A batch is addressed to another vault or compartment key.")
    if batch.device != key_id(device_key):
        raise SealError("A batch names another device.")
    last = after or _NO_BATCH
    if (batch.seq, batch.prev) != (last.seq + 1, last.digest):
        raise SealError("A batch does not follow the device's last one in this compartment.")
    batch.blob.verify(PayloadType.BATCH, device_key)
    return VerifiedBatch(batch)


def open_batch(batch: VerifiedBatch, opener: Opener, category: Category) -> list[Trace]:
    """Return the traces of a batch.

    Args:
        batch: From `verify_batch`.
        opener: Holds the compartment's seed.
        category: The compartment's category: what a device calls its traces does not count.

    Raises:
        SealError: Sealed to another key or under another header, or malformed inside.
    """
    if opener.recipient.key_hash != batch.key_hash:
        raise SealError("A batch is sealed to another compartment key.")
    return unpack_traces(opener.open(batch.blob.ciphertext, _info(batch.blob.header)), category)


def _info(header: bytes) -> bytes:
    return frames(PayloadType.BATCH.encode(), header)
