"""Reconciliation: whether what a log tells fits together, beyond each leaf by itself."""

from __future__ import annotations

from itertools import chain
from typing import Final

from vault.encoding import JsonObject, JsonValue, b64u
from vault.proof.certificate import parse_manifest
from vault.proof.errors import InvalidProof
from vault.proof.established import SKEW_S, Evidence
from vault.proof.event import Event
from vault.proof.leaf import LeafKind
from vault.proof.member import is_member
from vault.proof.ordered import is_subject_erasure
from vault.proof.report import Step
from vault.proof.tombstone import is_tombstone
from vault.proof.versions import verify_versions
from vault.seal.dsse import PayloadType, parse_envelope
from vault.seal.framing import frames
from vault.seal.ids import sha256

_TOLD: Final = (LeafKind.KEY, LeafKind.MANIFEST)
_KEY_STATEMENT: Final = frames(PayloadType.KEY.encode())


def _is_key(record: bytes) -> bool:
    return record.startswith(_KEY_STATEMENT)


_BESIDE: Final = (_is_key, is_tombstone, is_member, is_subject_erasure)
"""What no leaf names: each has a step of its own."""


def reconcile(evidence: Evidence) -> None:
    """Run the steps time and records."""
    latest_s = evidence.carried.latest_s
    for event in evidence.of_kind(LeafKind.ANSWER, LeafKind.DENIAL):
        evidence.attempt(Step.TIME, event.index, _verify_time, event, latest_s)
        latest_s = max(latest_s, event.said_at or 0)
    for event in (event for kind in _TOLD for event in evidence.events[kind]):
        evidence.attempt(Step.RECORDS, event.index, _verify_told, event)
    verify_versions(evidence)
    named = _named(evidence)
    for digest, record in evidence.bundle.records.items():
        if not any(beside(record) for beside in _BESIDE):
            evidence.attempt(Step.RECORDS, None, _verify_named, digest, named)


def _verify_time(_: Evidence, event: Event, latest_s: int) -> None:
    if event.at < latest_s - SKEW_S:
        raise InvalidProof(
            f"The event says it happened at {event.at}, but events of {latest_s} were logged before it: it was "
            "dated back, or inserted later."
        )


def _verify_told(evidence: Evidence, event: Event) -> None:
    """Check that a leaf about a key or a model says what its record says."""
    said: JsonObject
    if event.kind is LeafKind.KEY:
        key = evidence.keys.get(str(event.public.get("record")))
        if key is None:
            raise InvalidProof(
                "The bundle lacks the key statement that the leaf names, or the operator did not sign it."
            )
        digest = b64u(sha256(key.public_key))
        said = {"name": key.name, "epoch": key.epoch, "not_before": key.not_before, "public_key_sha256": digest}
    else:
        manifest = parse_manifest(parse_envelope(evidence.record(event, event.public, "record")).payload)
        said = {"model": b64u(manifest.digest)}
    if not said.items() <= event.public.items():
        raise InvalidProof(f"The leaf says something else about its {event.kind} than the record that it names.")


def _named(evidence: Evidence) -> set[str]:
    """Return the digests that leaves, and the consents among the records, name."""
    events = chain(evidence.grouped, *evidence.events.values())
    parts = (part for event in events for part in (event.public, event.personal))
    named = {value for part in parts for value in _texts(part)}
    versions = (known.version for versions in evidence.versions.values() for known in versions)
    return named | {b64u(version.request_sha256) for version in versions}


def _texts(part: JsonObject) -> list[str]:
    values: list[JsonValue] = list(part.values())
    return [value for value in values if isinstance(value, str)]


def _verify_named(_: Evidence, digest: bytes, named: set[str]) -> None:
    if b64u(digest) not in named:
        raise InvalidProof(f"No leaf names the record {b64u(digest)}: it was decided or signed, but never logged.")
