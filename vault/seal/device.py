"""Devices that may seal batches, and the heads of their batch chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from vault.encoding import JsonObject, b64u
from vault.seal.errors import SealError
from vault.seal.fields import Fields, parse_id
from vault.seal.ids import CompartmentId, DeviceId, key_id


class DeviceRole(StrEnum):
    """What a device is to the vault."""

    OWNER = "owner"
    SOURCE = "source"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The last batch of one device in one compartment.

    Args:
        seq: Its number, from 1.
        digest: SHA-256 of its bytes.
    """

    seq: int
    digest: bytes


@dataclass(frozen=True)
class Device:
    """A key that may seal batches.

    Args:
        public_key: Raw Ed25519 key, 32 bytes.
        role: What the device is to the vault.
        accepted: For a revoked device, its last accepted batch per compartment; None while live.
    """

    public_key: bytes
    role: DeviceRole
    accepted: Mapping[CompartmentId, ChainHead] | None = None

    @property
    def id(self) -> DeviceId:
        """The id that its key certifies."""
        return DeviceId(key_id(self.public_key))

    def may_have_sealed(self, compartment: CompartmentId, seq: int) -> bool:
        """Say whether a batch with this number counts: any while live, up to the accepted ones once revoked."""
        if self.accepted is None:
            return True
        head = self.accepted.get(compartment)
        return head is not None and seq <= head.seq


def dump_device(device: Device) -> JsonObject:
    """Return a device as the ring head lists it."""
    record: JsonObject = {"key": b64u(device.public_key), "role": str(device.role)}
    if device.accepted is not None:
        record["accepted"] = {b64u(c): dump_chain_head(head) for c, head in device.accepted.items()}
    return record


def parse_device(fields: Fields) -> Device:
    """Return a device of the ring head.

    Raises:
        SealError: A field is malformed.
    """
    public_key, role_name = fields.public_key("key"), fields.text("role")
    if role_name not in set(DeviceRole):
        raise SealError("A device has a role that TwinVault does not know.")
    accepted = parse_chain_heads(fields.object("accepted")) if "accepted" in fields else None
    fields.end()
    return Device(public_key, DeviceRole(role_name), accepted)


def dump_chain_head(head: ChainHead) -> JsonObject:
    """Return a chain head as JSON."""
    return {"seq": head.seq, "head": b64u(head.digest)}


def parse_chain_heads(record: JsonObject) -> dict[CompartmentId, ChainHead]:
    """Return chain heads by compartment.

    Raises:
        SealError: An id or head is malformed.
    """
    heads: dict[CompartmentId, ChainHead] = {}
    for name, head in record.items():
        fields = Fields(head)
        heads[CompartmentId(parse_id(name))] = ChainHead(fields.integer("seq", least=1), fields.hash("head"))
        fields.end()
    return heads
