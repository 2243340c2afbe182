"""Checkpoints: three lines, one origin, one spelling."""

from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.notes import cosigned_message, line
from vault.proof.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.merkle import EMPTY_ROOT
from vault.proof.note import VerifierKey, b64, sign_note
from vault.proof.receipt import Receipt, parse_receipt

ROOT = b64(bytes(32))


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_text_round_trips(size: int, root: bytes) -> None:
    checkpoint = Checkpoint("log.example", size, root)
    assert parse_checkpoint(checkpoint.text) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "", "a\n1\n", f"a\n1\n{ROOT}", f"a\n1\n{ROOT}\nmore\n", f"\n1\n{ROOT}\n", f"a\n01\n{ROOT}\n", f"a\n-1\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n", f"a\n1 \n{ROOT}\n", f"a\n1_0\n{ROOT}\n", f"a\n\u0661\n{ROOT}\n", f"a\n{2**63}\n{ROOT}\n",
        f"a\n1\n{ROOT[:-2]}B=\n", f"a\n1\n{b64(bytes(31))}\n", f"a\n0\n{ROOT}\n", f"a\n{'9' * 5000}\n{ROOT}\n",
        f"a\n1\n{ROOT}\n\n",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(MalformedProof):
        parse_checkpoint(text)


def test_an_empty_log_has_the_empty_root() -> None:
    assert parse_checkpoint(Checkpoint("a", 0, EMPTY_ROOT).text).size == 0


def test_a_checkpoint_of_another_log_under_the_same_key_is_refused() -> None:
    private = Ed25519PrivateKey.generate()
    key = VerifierKey("log.example", private.public_key().public_bytes_raw())
    note = sign_note(Checkpoint("other.example", 1, bytes(32)).text, key, private.sign)
    assert verify_checkpoint(note, key, "other.example").size == 1
    with pytest.raises(InvalidProof, match="another log"):
        verify_checkpoint(note, key, "log.example")


def test_a_line_of_another_kind_is_ignored_and_counts_for_nothing() -> None:
    """A log may one day sign with ML-DSA-44 beside Ed25519; a client of today goes on, and believes no more than before."""
    private, later = Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate()
    key = VerifierKey("log.example", private.public_key().public_bytes_raw())
    checkpoint = Checkpoint("log.example", 1, bytes(32))
    note, added = sign_note(checkpoint.text, key, private.sign), line("log.example", later, checkpoint, 1_800_000_000)
    assert verify_checkpoint(note + added, key, "log.example") == checkpoint
    receipt = Receipt(0, (), note + added)
    assert parse_receipt(receipt.text) == receipt
    with pytest.raises(InvalidProof, match="No trusted key"):
        verify_checkpoint(f"{checkpoint.text}\n{added}", key, "log.example")
    later.public_key().verify(
        b64decode(added.split(" ")[2])[12:], cosigned_message("log.example", checkpoint, 1_800_000_000)
    )
