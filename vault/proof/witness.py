"""Witnesses: other people's servers that cosign a log's checkpoints, each only if it continues the one before.

A log that shows two parties two histories finds no witness that cosigns both. A verifier names the
witnesses it trusts, how many must have cosigned, and how old their view may be.

Source: https://c2sp.org/tlog-cosignature (`cosignature/v1`), https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vault.proof.checkpoint import Checkpoint, parse_decimal, verify_checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.merkle import HASH_BYTES, verify_consistency
from vault.proof.note import (
    COSIGNATURE,
    MAX_NOTE_CHARS,
    NoteSignature,
    VerifierKey,
    b64,
    parse_b64,
    parse_note,
)
from vault.seal.errors import SealError
from vault.seal.signing import verify_signature

MAX_PROOF_HASHES: Final = 63
MAX_REQUEST_BYTES: Final = MAX_NOTE_CHARS + 4096

_TIME_BYTES: Final = 8
_MAX_S: Final = 2**32


@dataclass(frozen=True)
class WitnessPolicy:
    """Which witnesses a verifier trusts, and what it demands of them.

    Args:
        keys: Their keys, of the type `COSIGNATURE`; several of one name are one witness, which counts once.
        quorum: How many of them must have cosigned, at least 1.
        max_age_s: How much older than the newest event their view may be.
    """

    keys: tuple[VerifierKey, ...]
    quorum: int
    max_age_s: int

    def __post_init__(self) -> None:
        if any(key.kind != COSIGNATURE for key in self.keys):
            raise MalformedProof("A witness's key is of the type that cosigns, 0x04.")
        if len({key.public_key for key in self.keys}) != len(self.keys):
            raise MalformedProof("A witness is named twice.")
        if not 1 <= self.quorum <= len({key.name for key in self.keys}):
            raise MalformedProof(
                "The quorum is between 1 and the number of witnesses; keys of one name are one witness."
            )
        if not 1 <= self.max_age_s < _MAX_S:
            raise MalformedProof("The greatest age of a cosignature is a positive number of seconds.")


@dataclass(frozen=True)
class Witnessed:
    """A cosigned checkpoint, and the proof that another, later one continues it; not yet verified.

    Args:
        note: The signed note with its cosignatures.
        proof: Consistency proof from its size to the later one's; empty if they are the same tree.
    """

    note: str
    proof: tuple[bytes, ...] = ()


def cosigned_text(checkpoint: Checkpoint, at_s: int) -> bytes:
    """Return what a witness signs."""
    return f"cosignature/v1\ntime {at_s}\n{checkpoint.text}".encode()


def cosign(checkpoint: Checkpoint, key: VerifierKey, sign: Callable[[bytes], bytes], at_s: int) -> NoteSignature:
    """Return a witness's signature line over a checkpoint that it found to continue the one before.

    Args:
        checkpoint: Verified.
        key: The witness's key.
        sign: Ed25519 under it.
        at_s: Unix seconds.
    """
    signature = sign(cosigned_text(checkpoint, at_s))
    return NoteSignature(key.name, key.key_id, at_s.to_bytes(_TIME_BYTES, "big") + signature)


def verify_cosignatures(unverified_note: str, checkpoint: Checkpoint, keys: Sequence[VerifierKey]) -> dict[str, int]:
    """Return when each trusted witness cosigned this note's checkpoint, by the witness's name, under any of its keys.

    Args:
        unverified_note: The note; its text must be the checkpoint's.
        checkpoint: What the log's own signature on that note verified.
        keys: The witnesses that the caller trusts; lines of others are ignored.

    Raises:
        MalformedProof: It is not a note.
        InvalidProof: A line under a trusted witness's name and id does not verify.
    """
    note = parse_note(unverified_note)
    if note.unverified_text != checkpoint.text:
        raise InvalidProof("The cosigned note holds another checkpoint than the log signed.")
    trusted = {(key.name, key.key_id): key for key in keys}
    found: dict[str, int] = {}
    for line in note.signatures:
        key = trusted.get((line.name, line.key_id))
        if key is None:
            continue
        at_s = int.from_bytes(line.signature[:_TIME_BYTES], "big")
        try:
            verify_signature(key.public_key, line.signature[_TIME_BYTES:], cosigned_text(checkpoint, at_s))
        except SealError as error:
            raise InvalidProof(f"The cosignature by {key.name} is wrong.") from error
        found[key.name] = max(at_s, found.get(key.name, 0))
    return found


def verify_witnessed(
    unverified: Witnessed | None, checkpoint: Checkpoint, log: VerifierKey, policy: WitnessPolicy, latest_s: int
) -> None:
    """Check that enough witnesses saw, late enough, a tree that this checkpoint continues.

    Args:
        unverified: What came with the checkpoint.
        checkpoint: The later checkpoint, verified.
        log: The log's key; its name is the origin.
        policy: What the verifier demands.
        latest_s: When the newest event happened that the checkpoint is to vouch for, unix seconds.

    Raises:
        InvalidProof: Too few cosigned, they did too long ago, or the later tree does not continue theirs: the
            log was rewritten, or shows different parties different histories.
    """
    if unverified is None:
        raise InvalidProof("No witnessed checkpoint came with it, and the trusted keys name witnesses.")
    seen = verify_checkpoint(unverified.note, log, log.name)
    cosigned = verify_cosignatures(unverified.note, seen, policy.keys)
    if len(cosigned) < policy.quorum:
        raise InvalidProof(f"{len(cosigned)} trusted witnesses cosigned where {policy.quorum} must.")
    if sum(at_s >= latest_s - policy.max_age_s for at_s in cosigned.values()) < policy.quorum:
        raise InvalidProof(f"The witnesses' view is more than {policy.max_age_s} seconds older than the newest event.")
    if seen.size == 0:
        raise InvalidProof("The witnesses have seen an empty log only.")
    verify_consistency(seen.size, checkpoint.size, unverified.proof, seen.root, checkpoint.root)


@dataclass(frozen=True)
class AddCheckpoint:
    """A log's request to a witness, parsed but not verified.

    Args:
        old_size: The size that the log believes the witness has seen.
        proof: Consistency proof from there.
        note: The signed note of the new checkpoint.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    @property
    def body(self) -> bytes:
        """The request's body."""
        lines = "".join(f"{b64(item)}\n" for item in self.proof)
        return f"old {self.old_size}\n{lines}\n{self.note}".encode()


def parse_add_checkpoint(unverified_body: bytes) -> AddCheckpoint:
    """Parse a request to a witness.

    Raises:
        MalformedProof: It is not one.
    """
    if len(unverified_body) > MAX_REQUEST_BYTES:
        raise MalformedProof("The request is longer than any can be.")
    try:
        head, separator, note = unverified_body.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise MalformedProof("The request is not UTF-8.") from error
    old, *lines = head.split("\n")
    if not separator or not old.startswith("old "):
        raise MalformedProof("A request is the old size, the proof, an empty line and the checkpoint.")
    if len(lines) > MAX_PROOF_HASHES:
        raise MalformedProof(f"A consistency proof holds more than {MAX_PROOF_HASHES} hashes.")
    proof = tuple(parse_b64(line, size=HASH_BYTES) for line in lines)
    return AddCheckpoint(parse_decimal(old.removeprefix("old ")), proof, note)


def add_cosignature(note: str, key: VerifierKey, unverified_lines: str) -> str:
    """Return the note with a witness's own line out of its answer; `verify_cosignatures` decides whether that counts.

    Lines under other keys are left out: one witness must not spoil, or use up, the places of the others.

    Args:
        note: The note that the witness was asked to cosign.
        key: The witness's key.
        unverified_lines: Its answer.

    Raises:
        MalformedProof: The answer is not signature lines.
    """
    answered = parse_note(f"\n\n{unverified_lines}").signatures
    return note + "".join(one.line for one in answered if (one.name, one.key_id) == (key.name, key.key_id))
