"""What an answer's bundle shows to whoever reads it, and a copy of it with one bit flipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twinvault.receipts import NoReceipt
from vault.encoding import b64u, parse_b64u, parse_json
from vault.proof.bundle import Bundle, LoggedLeaf, parse_bundle
from vault.proof.certificate import Manifest, parse_manifest
from vault.proof.decision import evaluate, parse_policy_set
from vault.proof.decision_record import parse_decision
from vault.proof.leaf import LeafKind
from vault.seal.dsse import parse_envelope

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@dataclass(frozen=True)
class Shown:
    """What stands in a bundle beside the answer.

    Args:
        index: The answer's place in the log.
        sentences: The rules that allowed it, in words.
        manifest: The model that answered.
    """

    index: int
    sentences: tuple[str, ...]
    manifest: Manifest


def read_shown(bundle_bytes: bytes) -> Shown:
    """Return what a verified bundle of one answer shows; the decision is replayed, not believed."""
    bundle, leaf = _parse(bundle_bytes)
    public, personal = parse_json(leaf.public.body), parse_json(leaf.personal.body if leaf.personal else b"{}")
    policy_set = parse_policy_set(bundle.records[parse_b64u(public["policy_set"])])
    decision = parse_decision(parse_json(bundle.records[parse_b64u(personal["decision"])]))
    reasons = evaluate(decision, policy_set).reasons
    manifest = parse_manifest(parse_envelope(bundle.records[parse_b64u(public["manifest"])]).payload)
    return Shown(leaf.index, tuple(policy_set.rules[reason].sentence for reason in reasons), manifest)


def flip_bit(bundle_bytes: bytes) -> bytes:
    """Return a copy in which one bit of the answer record is another one, and the file still a bundle."""
    bundle, leaf = _parse(bundle_bytes)
    personal = parse_json(leaf.personal.body if leaf.personal else b"{}")
    record = b64u(bundle.records[parse_b64u(personal["record"])]).encode()
    start = bundle_bytes.index(record)
    at = next(i for i in range(start + len(record) // 2, start + len(record)) if bundle_bytes[i] ^ 1 in _ALPHABET)
    return bundle_bytes[:at] + bytes([bundle_bytes[at] ^ 1]) + bundle_bytes[at + 1 :]


def _parse(bundle_bytes: bytes) -> tuple[Bundle, LoggedLeaf]:
    bundle = parse_bundle(bundle_bytes)
    for leaf in bundle.leaves:
        if leaf.personal is not None and parse_json(leaf.public.body)["kind"] == LeafKind.ANSWER.value:
            return bundle, leaf
    raise NoReceipt("The bundle holds no answer.")
