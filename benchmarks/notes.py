"""What a second, post-quantum signature line would cost a checkpoint and every receipt that carries it.

Both keys sign the same checkpoint in turn, in one run: Ed25519 its three lines (signed-note type 0x01), ML-DSA-44
the `subtree/v1` message (type 0x06), each in the library that the log uses. `receipt_bytes` is that of one leaf among
a million, with the log's own line, and with the second one beside it. Source: C2SP tlog-cosignature, FIPS 204.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from vault.proof.checkpoint import Checkpoint
from vault.proof.note import VerifierKey, sign_note, verify_note
from vault.proof.receipt import Receipt
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey, new_seed

ORIGIN = "log.example/vault"
LEAVES = 1_000_000
ML_DSA_44 = b"\x06"
_HEIGHT = 20
_RUNS = 400


def cosigned_message(name: str, checkpoint: Checkpoint, at_s: int) -> bytes:
    """Return what a key of the type 0x06 signs of a checkpoint."""
    cosigner, origin = (len(text).to_bytes(1, "big") + text for text in (name.encode(), checkpoint.origin.encode()))
    span = bytes(8) + checkpoint.size.to_bytes(8, "big")
    return b"subtree/v1\n\0" + cosigner + at_s.to_bytes(8, "big") + origin + span + checkpoint.root


def line(name: str, key: MLDSA44PrivateKey, checkpoint: Checkpoint, at_s: int) -> str:
    """Return a signature line of the type 0x06."""
    public = key.public_key().public_bytes_raw()
    key_id = sha256(name.encode() + b"\n" + ML_DSA_44 + public)[:4]
    signed = at_s.to_bytes(8, "big") + key.sign(cosigned_message(name, checkpoint, at_s))
    return f"— {name} {b64encode(key_id + signed).decode()}\n"


def measure() -> dict[str, Any]:
    """Return medians in microseconds of CPU time, and sizes in bytes."""
    ours, theirs = SigningKey(new_seed()), MLDSA44PrivateKey.generate()
    checkpoint = Checkpoint(ORIGIN, LEAVES, secrets.token_bytes(32))
    key, text = VerifierKey(ORIGIN, ours.public_key), checkpoint.text.encode()
    message, at_s = cosigned_message(ORIGIN, checkpoint, 1_800_000_000), 1_800_000_000
    verifier, signature = theirs.public_key(), theirs.sign(message)
    note = sign_note(checkpoint.text, key, ours.sign)
    both = note + line(ORIGIN, theirs, checkpoint, at_s)
    steps: dict[str, Callable[[], object]] = {
        "ed25519_sign_us": lambda: ours.sign(text),
        "ml_dsa_44_sign_us": lambda: theirs.sign(message),
        "ed25519_verify_us": lambda: verify_note(note, [key]),
        "ml_dsa_44_verify_us": lambda: verifier.verify(signature, message),
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_RUNS):
        for name, step in steps.items():
            begun = time.process_time_ns()
            step()
            taken[name].append((time.process_time_ns() - begun) / 1_000)
    found: dict[str, Any] = {name: round(statistics.median(times), 1) for name, times in taken.items()}
    path = tuple(secrets.token_bytes(32) for _ in range(_HEIGHT))
    receipts = [len(Receipt(LEAVES, path, shown).text.encode()) for shown in (note, both)]
    found["sign_ratio"] = round(found["ml_dsa_44_sign_us"] / found["ed25519_sign_us"], 1)
    return found | {
        "ml_dsa_44_line_bytes": len(both.encode()) - len(note.encode()),
        "checkpoint_bytes": len(note.encode()),
        "checkpoint_with_ml_dsa_44_bytes": len(both.encode()),
        "receipt_bytes": receipts[0],
        "receipt_with_ml_dsa_44_bytes": receipts[1],
    }


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.notes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="the same: it takes a second")
    arguments = parser.parse_args()
    found = measure()
    print(json.dumps(found) if arguments.json else json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
