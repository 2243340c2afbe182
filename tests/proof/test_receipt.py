"""Receipts: the published shape, one spelling, nothing passes but the logged entry under the trusted log."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vault.proof import merkle
from vault.proof.checkpoint import Checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.note import VerifierKey, sign_note
from vault.proof.receipt import HEADER, Receipt, parse_receipt, verify_receipt

ORIGIN = "log.example/vault"
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEY = VerifierKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())
ENTRIES = [b"entry %d" % n for n in range(11)]


def _receipt(index: int, size: int = len(ENTRIES)) -> str:
    hashes = [merkle.leaf_hash(entry) for entry in ENTRIES]

    def hash_at(level: int, at: int) -> bytes:
        return merkle.Edge().extend(hashes[at << level : (at + 1) << level]).root

    root = merkle.Edge().extend(hashes[:size]).root
    note = sign_note(Checkpoint(ORIGIN, size, root).text, KEY, PRIVATE.sign)
    return Receipt(index, tuple(merkle.inclusion_proof(index, size, hash_at)), note).text


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 11), (7, 8), (10, 11), (4, 5)])
def test_a_receipt_shows_the_index_of_its_entry(index: int, size: int) -> None:
    text = _receipt(index, size)
    assert text.startswith(HEADER + f"\nindex {index}\n")
    assert parse_receipt(text).text == text
    assert verify_receipt(text, ENTRIES[index], KEY, ORIGIN) == index


def test_another_entry_index_log_or_key_is_refused() -> None:
    text = _receipt(4)
    stranger = VerifierKey(ORIGIN, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    for args in [
        (text, ENTRIES[5], KEY, ORIGIN),
        (text.replace("index 4", "index 5"), ENTRIES[4], KEY, ORIGIN),
        (text, ENTRIES[4], KEY, "log.example/other"),
        (text, ENTRIES[4], stranger, ORIGIN),
    ]:
        with pytest.raises(InvalidProof):
            verify_receipt(*args)


def test_a_proof_under_a_checkpoint_of_another_size_is_refused() -> None:
    old, new = parse_receipt(_receipt(4, 5)), parse_receipt(_receipt(4, 11))
    with pytest.raises(InvalidProof):
        verify_receipt(Receipt(4, old.proof, new.checkpoint).text, ENTRIES[4], KEY, ORIGIN)


def test_every_changed_character_is_found() -> None:
    text = _receipt(4)
    for at in range(len(text)):
        for other in ("0", "\n", " ", ""):
            changed = text[:at] + other + text[at + 1 :]
            if changed != text:
                with pytest.raises(InvalidProof):
                    verify_receipt(changed, ENTRIES[4], KEY, ORIGIN)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace(HEADER, HEADER + "\nextra AAAA"),
        lambda text: text.replace("index 4", "index 04"),
        lambda text: text.replace("index 4\n", "index 4\n\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n",
        lambda text: text.replace("index 4\n", "index 4\n" + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 64),
        lambda text: text + "x" * 100_000,
        lambda text: text.partition("\n\n")[0],
    ],
)
def test_other_spellings_are_malformed(change) -> None:
    with pytest.raises(MalformedProof):
        parse_receipt(change(_receipt(4)))


@given(st.text(alphabet=st.sampled_from("c2sp.org/tlog-proof@v1\n index0A=—"), max_size=300))
def test_any_text_is_a_receipt_or_malformed(text: str) -> None:
    for candidate in (text, HEADER + "\nindex 0\n" + text):
        with pytest.raises(MalformedProof):
            parse_receipt(candidate)
