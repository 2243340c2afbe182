"""Reconciliation: whether what a log tells fits together, beyond each leaf by itself."""

from __future__ import annotations

from typing import Final

from vault.encoding import JsonObject, JsonValue, b64u
from vault.proof.certificate import Manifest, parse_manifest
from vault.proof.errors import InvalidProof
from vault.proof.established import Event, Evidence
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.proof.tombstone import is_tombstone
from vault.seal.dsse import PayloadType, parse_envelope
from vault.seal.framing import frames

SKEW_S: Final = 300
"""By how much the clocks of several processes of one service may differ."""

_KEY_STATEMENT: Final = frames(PayloadType.KEY.encode())
_NEARBY: Final = 64  # leaves of one transaction lie near each other, unless the range ends between them
_SAME: Final = ("map", "code", "cohort", "epsilon_ppm", "delta_inverse")


def reconcile(evidence: Evidence) -> None:
    """Run the steps time, records and ledger."""
    latest_s = evidence.carried.latest_s
    for event in evidence.of_kind(LeafKind.ANSWER, LeafKind.DENIAL):
        evidence.attempt(Step.TIME, event.index, _verify_time, event, latest_s)
        latest_s = max(latest_s, event.at if isinstance(event.personal.get("at"), int) else 0)
    named = _named(evidence)
    for digest, record in evidence.bundle.records.items():
        if not record.startswith(_KEY_STATEMENT) and not is_tombstone(record):
            evidence.attempt(Step.RECORDS, None, _verify_named, digest, named)
    whole = evidence.whole
    for event in evidence.events[LeafKind.MANIFEST]:
        if event.index in whole:
            evidence.attempt(Step.LEDGER, event.index, _verify_charged, event)
    for event in evidence.events[LeafKind.TRAINING]:
        if event.index in whole and event.public.get("outcome") == "released":
            evidence.attempt(Step.LEDGER, event.index, _verify_published, event)


def _verify_time(_: Evidence, event: Event, latest_s: int) -> None:
    if event.at < latest_s - SKEW_S:
        raise InvalidProof(
            f"The event says it happened at {event.at}, but events of {latest_s} were logged before it: it was "
            "dated back, or inserted later."
        )


def _named(evidence: Evidence) -> set[str]:
    """Return the digests that leaves, and the consents among the records, name."""
    parts = (part for found in evidence.events.values() for event in found for part in (event.public, event.personal))
    named = {value for part in parts for value in _texts(part)}
    versions = (known.version for versions in evidence.versions.values() for known in versions)
    return named | {b64u(version.request_sha256) for version in versions}


def _texts(part: JsonObject) -> list[str]:
    values: list[JsonValue] = list(part.values())
    return [value for value in values if isinstance(value, str)]


def _verify_named(_: Evidence, digest: bytes, named: set[str]) -> None:
    if b64u(digest) not in named:
        raise InvalidProof(f"No leaf names the record {b64u(digest)}: it was decided or signed, but never logged.")


def _verify_charged(evidence: Evidence, event: Event) -> None:
    manifest = parse_manifest(parse_envelope(evidence.record(event, event.public, "record")).payload)
    if not manifest.charges:
        return
    said = _of_manifest(manifest)
    if any(training.index > event.index and _says(training, said) for training in evidence.events[LeafKind.TRAINING]):
        return
    if evidence.whole.stop - event.index > _NEARBY:
        raise InvalidProof("The model was learned from people, but no training is logged that charged them.")


def _verify_published(evidence: Evidence, event: Event) -> None:
    for published in evidence.events[LeafKind.MANIFEST]:
        if published.index < event.index:
            envelope = parse_envelope(evidence.record(published, published.public, "record"))
            if _says(event, _of_manifest(parse_manifest(envelope.payload))):
                return
    raise InvalidProof("A training was charged whose model is not the one that was published.")


def _of_manifest(manifest: Manifest) -> JsonObject:
    values = (
        b64u(manifest.map_sha256),
        b64u(manifest.code_sha256),
        manifest.cohort,
        manifest.epsilon_ppm,
        manifest.delta_inverse,
    )
    return dict(zip(_SAME, values, strict=True))


def _says(training: Event, said: JsonObject) -> bool:
    return training.public.get("outcome") == "released" and said.items() <= training.public.items()
