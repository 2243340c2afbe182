"""An honest bundle, and a forger who changes its events and signs them anew with the log's key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.answer_kit import ORIGIN, Service
from tests.verifying import verify_both
from vault.encoding import b64u, dump_json, parse_b64u
from vault.proof.bundle import Bundle, LoggedLeaf, parse_bundle
from vault.proof.checkpoint import Checkpoint
from vault.proof.leaf import LeafKind, make_entry
from vault.proof.merkle import inclusion_proof, leaf_hash, node_hash, range_root
from vault.proof.note import sign_note
from vault.proof.verify import Report, Step
from vault.seal.dsse import PayloadType, parse_envelope, unverified_record
from vault.seal.ids import sha256


@dataclass
class Told:
    """One event as the lying service logs it anew."""

    kind: LeafKind
    public: dict[str, Any]
    personal: dict[str, Any]
    opened: bool


@dataclass
class Forge:
    """The events and records of an honest bundle, to be changed and signed again with the log's key."""

    service: Service
    events: list[Told]
    records: dict[str, bytes]

    @classmethod
    def of(cls, service: Service, bundle: Bundle) -> Forge:
        events = []
        for leaf in bundle.leaves:
            public = json.loads(leaf.public.body)
            personal = {} if leaf.personal is None else json.loads(leaf.personal.body)
            events.append(Told(LeafKind(public.pop("kind")), public, personal, leaf.personal is not None))
        return cls(service, events, {b64u(digest): data for digest, data in bundle.records.items()})

    def event(self, kind: LeafKind) -> Told:
        return next(event for event in reversed(self.events) if event.kind is kind)

    def index(self, kind: LeafKind) -> int:
        return max(at for at, event in enumerate(self.events) if event.kind is kind)

    def named(self, part: dict[str, Any], name: str) -> bytes:
        return self.records[part[name]]

    def swap(self, part: dict[str, Any], name: str, data: bytes) -> None:
        """Let a leaf name another record, and bring that along."""
        part[name] = b64u(sha256(data))
        self.records[part[name]] = data

    def swap_json(self, part: dict[str, Any], name: str, **changes: Any) -> None:
        record = json.loads(self.named(part, name))
        self.swap(part, name, dump_json(record | changes))

    def bundle(self, *, whole: bool = False) -> Bundle:
        """Sign a tree over the events as they are now."""
        made = [make_entry({"kind": event.kind.value, **event.public}, event.personal) for event in self.events]
        hashes = [leaf_hash(entry) for entry, _ in made]
        size = len(hashes)

        def hash_at(level: int, index: int) -> bytes:
            if level == 0:
                return hashes[index]
            return node_hash(hash_at(level - 1, 2 * index), hash_at(level - 1, 2 * index + 1))

        note = sign_note(
            Checkpoint(ORIGIN, size, range_root(0, size, hash_at)).text, self.service.log, self.service.log_key.sign
        )
        leaves = tuple(
            LoggedLeaf(
                at, entry, tuple(inclusion_proof(at, size, hash_at)), opened.public,
                opened.personal if event.opened else None,
            )
            for at, (event, (entry, opened)) in enumerate(zip(self.events, made, strict=True))
        )  # fmt: skip
        records = {sha256(data): data for data in self.records.values()}
        return Bundle(note, leaves, records, 0, size if whole else 0)


@dataclass
class Honest:
    service: Service
    content: bytes
    bundle: Bundle = field(init=False)

    def __post_init__(self) -> None:
        self.bundle = parse_bundle(self.content)

    def forge(self) -> Forge:
        """Return the answer's events behind those of the service's keys, so that they can stand for a whole log."""
        forge = Forge.of(self.service, self.bundle)
        forge.events[:0] = [
            _key_leaf(record) for record in self.bundle.records.values() if PayloadType.KEY.encode() in record[:24]
        ]
        return forge

    def verify(self, bundle: Bundle) -> Report:
        return verify_both(bundle, self.service.trust)


def _key_leaf(record: bytes) -> Told:
    envelope = parse_envelope(record)
    said = unverified_record(envelope)
    public = {
        "name": said["name"],
        "epoch": said["epoch"],
        "public_key_sha256": b64u(sha256(parse_b64u(said["public_key"]))),
        "not_before": said["not_before"],
        "record": b64u(envelope.digest),
    }
    return Told(LeafKind.KEY, public, {}, opened=False)


def flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def failures(report: Report) -> list[tuple[Step, int | None]]:
    return [(failure.step, failure.leaf_index) for failure in report.failures]
