"""C2SP checkpoints: a log's origin, size and root in a signed note.

Source: https://c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.merkle import EMPTY_ROOT, HASH_BYTES
from vault.proof.note import VerifierKey, b64, parse_b64, verify_note

MAX_SIZE = 2**63 - 1  # what every database and language keeps in a signed integer

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def parse_decimal(text: str) -> int:
    """Parse a size or index: ASCII digits, no sign, no leading zero, at most `MAX_SIZE`.

    Raises:
        MalformedProof: Anything else.
    """
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise MalformedProof("A size or index is not a plain decimal number below 2**63.")
    return int(text)


@dataclass(frozen=True)
class Checkpoint:
    """What a log commits to by signing.

    Args:
        origin: The log's name.
        size: Number of leaves.
        root: 32-byte Merkle tree hash.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the signed text of a checkpoint.

    Extension lines are refused: cosignatures of newer types do not cover them.

    Raises:
        MalformedProof: It is not exactly origin, size and root.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise MalformedProof("A checkpoint is exactly three lines: origin, size and root.")
    checkpoint = Checkpoint(lines[0], parse_decimal(lines[1]), parse_b64(lines[2], size=HASH_BYTES))
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise MalformedProof("A checkpoint of an empty log carries a root that is not the empty root.")
    return checkpoint


def verify_checkpoint(unverified_note: str, log: VerifierKey, origin: str) -> Checkpoint:
    """Return the checkpoint that this log signed.

    Args:
        unverified_note: The whole signed note.
        log: The log's key, from the caller's own trust, never from the bundle.
        origin: The log's name; one key that signs for two logs must not pass one's root as the other's.

    Raises:
        MalformedProof: It is not a checkpoint.
        InvalidProof: Another key signed it, the signature is wrong, or it is another log's.
    """
    checkpoint = parse_checkpoint(verify_note(unverified_note, [log]))
    if checkpoint.origin != origin:
        raise InvalidProof("The checkpoint belongs to another log.")
    return checkpoint
