"""Receipts: C2SP `tlog-proof@v1`, a self-contained proof that an entry is in the log.

Source: https://c2sp.org/tlog-proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from vault.proof.checkpoint import parse_checkpoint, parse_decimal, verify_checkpoint
from vault.proof.errors import MalformedProof
from vault.proof.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from vault.proof.note import MAX_NOTE_CHARS, VerifierKey, b64, parse_b64, parse_note

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_HASHES = 63


@dataclass(frozen=True)
class Receipt:
    """A receipt, not yet verified.

    Args:
        index: Leaf index, from zero.
        proof: Sibling hashes from the leaf upwards.
        checkpoint: The signed note, verbatim.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str

    @property
    def text(self) -> str:
        """The receipt as it is stored and sent."""
        hashes = "".join(f"{b64(item)}\n" for item in self.proof)
        return f"{HEADER}\nindex {self.index}\n{hashes}\n{self.checkpoint}"


def parse_receipt(unverified_receipt: str) -> Receipt:
    """Parse a receipt; every receipt has exactly one spelling.

    The `extra` line that the format allows is refused: nothing authenticates it.

    Raises:
        MalformedProof: It is not a receipt in that spelling.
    """
    if len(unverified_receipt) > MAX_NOTE_CHARS + 4096:
        raise MalformedProof("A receipt is longer than any receipt can be.")
    head, separator, note = unverified_receipt.partition("\n\n")
    header, _, rest = head.partition("\n")
    index_line, *hashes = rest.split("\n")
    if not separator or header != HEADER or not index_line.startswith("index "):
        raise MalformedProof("A receipt begins with its format, the leaf index and the inclusion proof.")
    if len(hashes) > MAX_PROOF_HASHES:
        raise MalformedProof(f"An inclusion proof holds more than {MAX_PROOF_HASHES} hashes.")
    parse_checkpoint(parse_note(note).unverified_text)
    index = parse_decimal(index_line.removeprefix("index "))
    return Receipt(index, tuple(parse_b64(line, size=HASH_BYTES) for line in hashes), note)


def verify_receipt(unverified_receipt: str, entry: bytes, log: VerifierKey, origin: str) -> int:
    """Return the leaf index at which the log has `entry`.

    Args:
        unverified_receipt: Text of the receipt.
        entry: The 65-byte entry that the verifier computed or was given with its openings.
        log: The log's key, from the caller's own trust.
        origin: The log's name, from the caller's own trust.

    Raises:
        MalformedProof: It is not a receipt.
        InvalidProof: The checkpoint is not this log's, or the entry is not at that index.
    """
    receipt = parse_receipt(unverified_receipt)
    checkpoint = verify_checkpoint(receipt.checkpoint, log, origin)
    verify_inclusion(leaf_hash(entry), receipt.index, checkpoint.size, receipt.proof, checkpoint.root)
    return receipt.index
