"""An upload: batches of one device and its signed list of chain heads; and the server's acknowledgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vault.encoding import JsonObject, b64u
from vault.seal.batch import Batch, VerifiedBatch, parse_batch, verify_batch
from vault.seal.device import ChainHead, Device, dump_chain_head, parse_chain_heads
from vault.seal.dsse import Envelope, PayloadType, parse_envelope, sign_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.framing import Reader, frames
from vault.seal.ids import CompartmentId, DeviceId, VaultId, key_id, sha256
from vault.seal.signing import Signer

MAX_UPLOAD_BYTES: Final = 32 << 20
MAX_BATCHES: Final = 1024


@dataclass(frozen=True, slots=True)
class HeadList:
    """The last batch that a device sealed in every compartment: what the server dropped shows against it.

    Args:
        vault: Whose.
        device: Who signed it.
        version: Grows with each upload of the device.
        issued_at_s: Unix seconds.
        heads: By compartment, all that the device ever sealed to.
    """

    vault: VaultId
    device: DeviceId
    version: int
    issued_at_s: int
    heads: Mapping[CompartmentId, ChainHead]


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that nobody has verified yet.

    Args:
        digest: SHA-256 of its bytes.
        batches: In the order to be applied.
        head_list: The device's signed head list.
    """

    digest: bytes
    batches: tuple[Batch, ...]
    head_list: Envelope


def sign_head_list(head_list: HeadList, device: Signer) -> Envelope:
    """Return the head list under the device's signature."""
    record: JsonObject = {
        "vault": b64u(head_list.vault),
        "device": b64u(head_list.device),
        "version": head_list.version,
        "issued_at": head_list.issued_at_s,
        "heads": {b64u(name): dump_chain_head(head) for name, head in head_list.heads.items()},
    }
    return sign_record(PayloadType.HEAD_LIST, record, device)


def verify_head_list(envelope: Envelope, vault: VaultId, device_key: bytes) -> HeadList:
    """Return a head list that this device signed for this vault.

    Args:
        envelope: What arrived.
        vault: Whose traces the device seals.
        device_key: The device's Ed25519 key as the ring lists it, 32 bytes.

    Raises:
        SealError: Another vault or device, a bad signature, or malformed.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.HEAD_LIST, device_key))
    head_list = HeadList(
        VaultId(fields.id("vault")),
        DeviceId(fields.id("device")),
        fields.integer("version", least=1),
        fields.integer("issued_at"),
        parse_chain_heads(fields.object("heads")),
    )
    fields.end()
    if head_list.vault != vault or head_list.device != key_id(device_key):
        raise SealError("A head list belongs to another vault or device.")
    return head_list


def encode_upload(batches: Sequence[bytes], head_list: Envelope) -> bytes:
    """Return the body of an upload: a frame with the head list, then a frame per batch."""
    return frames(head_list.encoded, *batches)


def parse_upload(data: bytes) -> Upload:
    """Parse an upload; nothing in it is verified.

    Raises:
        SealError: Malformed, no batch or more than 1,024, or more than 32 MiB.
    """
    reader = Reader(data, MAX_UPLOAD_BYTES)
    head_list = parse_envelope(reader.frame())
    batches: list[Batch] = []
    while reader.left_bytes:
        if len(batches) == MAX_BATCHES:
            raise SealError("An upload has more than 1,024 batches; split it.")
        batches.append(parse_batch(reader.frame()))
    if not batches:
        raise SealError("An upload has no batch.")
    return Upload(sha256(data), tuple(batches), head_list)


def verify_upload(
    upload: Upload,
    vault: VaultId,
    device: Device,
    keys: Mapping[CompartmentId, bytes],
    heads: Mapping[CompartmentId, ChainHead],
) -> tuple[list[VerifiedBatch], HeadList]:
    """Check every batch of an upload in order, and that the head list ends where they end.

    Args:
        upload: From `parse_upload`.
        vault: The vault it arrived for.
        device: Who uploads, from the verified ring head; must not be revoked.
        keys: SHA-256 of the public key per compartment that the ring lists.
        heads: The device's chain heads so far.

    Returns:
        The batches, and the head list, whose heads are the device's new ones.

    Raises:
        SealError: The device is revoked, a compartment is not in the ring, or a batch or the head
            list does not verify.
    """
    if device.accepted is not None:
        raise SealError("A revoked device cannot upload.")
    now = dict(heads)
    verified: list[VerifiedBatch] = []
    for batch in upload.batches:
        key_hash = keys.get(batch.compartment)
        if key_hash is None:
            raise SealError("A batch is sealed to a compartment that the ring does not list.")
        last = now.get(batch.compartment)
        verified.append(verify_batch(batch, vault, key_hash, device.public_key, last))
        now[batch.compartment] = batch.head
    head_list = verify_head_list(upload.head_list, vault, device.public_key)
    if dict(head_list.heads) != now:
        raise SealError("A head list does not end with the device's batches; send what is missing.")
    return verified, head_list


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What the server says it keeps.

    Args:
        vault: Whose.
        device: Who uploaded.
        upload: SHA-256 of the upload's body.
        acknowledged_at_s: Unix seconds.
        heads: Chain heads after the upload, of the compartments it touched.
    """

    vault: VaultId
    device: DeviceId
    upload: bytes
    acknowledged_at_s: int
    heads: Mapping[CompartmentId, ChainHead]


def sign_acknowledgement(acknowledgement: Acknowledgement, service: Signer) -> Envelope:
    """Return the acknowledgement under the service's signature."""
    record: JsonObject = {
        "vault": b64u(acknowledgement.vault),
        "device": b64u(acknowledgement.device),
        "upload": b64u(acknowledgement.upload),
        "acknowledged_at": acknowledgement.acknowledged_at_s,
        "heads": {b64u(name): dump_chain_head(head) for name, head in acknowledgement.heads.items()},
    }
    return sign_record(PayloadType.ACKNOWLEDGEMENT, record, service)


def verify_acknowledgement(envelope: Envelope, service_key: bytes) -> Acknowledgement:
    """Return an acknowledgement that the service signed; the device compares it with what it sent.

    Raises:
        SealError: A bad signature, or malformed.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.ACKNOWLEDGEMENT, service_key))
    acknowledgement = Acknowledgement(
        VaultId(fields.id("vault")),
        DeviceId(fields.id("device")),
        fields.hash("upload"),
        fields.integer("acknowledged_at"),
        parse_chain_heads(fields.object("heads")),
    )
    fields.end()
    return acknowledgement
