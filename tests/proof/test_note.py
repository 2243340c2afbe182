"""Signed notes: the published example, one spelling, no unsigned text."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.note import (
    NoteSignature,
    VerifierKey,
    b64,
    parse_b64,
    parse_note,
    parse_verifier_key,
    sign_note,
    verify_note,
)

TEXT = "example.org/log\n3\nline\n"
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


def _key(name: str = "example.org/log", seed: int = 1) -> tuple[Ed25519PrivateKey, VerifierKey]:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return private, VerifierKey(name, private.public_key().public_bytes_raw())


def test_a_public_verifier_key_keeps_its_spelling() -> None:
    assert parse_verifier_key(TESSERA_KEY).text == TESSERA_KEY


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a+b", "a+b+c", TESSERA_KEY + "=", TESSERA_KEY[:-1] + "y", TESSERA_KEY.upper(),
        TESSERA_KEY.replace("33d7b496", "33D7B496"), TESSERA_KEY.replace("33d7b496", "33d7b497"),
        TESSERA_KEY.replace("/log/", "/log /"), TESSERA_KEY.replace("example.com", "example.net"), "\ud800+00+AA==",
        TESSERA_KEY.replace("+AeH", "+BOH"), " " + TESSERA_KEY, TESSERA_KEY + "\n",
    ],
)  # fmt: skip
def test_other_verifier_keys_are_refused(text: str) -> None:
    with pytest.raises(MalformedProof):
        parse_verifier_key(text)


def test_a_note_verifies_under_its_key_only() -> None:
    private, key = _key()
    note = sign_note(TEXT, key, private.sign)
    assert verify_note(note, [key]) == TEXT
    assert verify_note(note, [_key("other")[1], key]) == TEXT
    for stranger in (_key(seed=2)[1], _key("example.org/log2")[1]):
        with pytest.raises(InvalidProof, match="No trusted key"):
            verify_note(note, [stranger])
    with pytest.raises(InvalidProof):
        verify_note(note, [])


def test_a_signer_with_another_key_publishes_nothing() -> None:
    with pytest.raises(InvalidProof, match="is wrong"):
        sign_note(TEXT, _key()[1], _key(seed=2)[0].sign)
    with pytest.raises(InvalidProof):
        sign_note(TEXT, _key()[1], lambda _: b"short")


def test_every_changed_character_of_text_or_signature_is_found() -> None:
    private, key = _key()
    note = sign_note(TEXT, key, private.sign)
    for at in range(len(note)):
        for other in ("A", "\n", " ", ""):
            changed = note[:at] + other + note[at + 1 :]
            if changed != note:
                with pytest.raises(InvalidProof):
                    verify_note(changed, [key])


def test_an_unknown_signature_is_ignored_and_a_wrong_one_of_a_known_key_refuses_all() -> None:
    private, key = _key()
    other_private, other = _key("witness.example", 2)
    note = sign_note(TEXT, key, private.sign)
    wrong = NoteSignature(other.name, other.key_id, other_private.sign(b"something else")).line
    assert verify_note(note + wrong, [key]) == TEXT
    with pytest.raises(InvalidProof, match="is wrong"):
        verify_note(note + wrong, [key, other])


def test_text_may_hold_empty_lines_but_none_can_be_smuggled_behind_the_signature() -> None:
    private, key = _key()
    note = sign_note("one\n\ntwo\n", key, private.sign)
    assert verify_note(note, [key]) == "one\n\ntwo\n"
    with pytest.raises(InvalidProof):
        verify_note(note + "\nthree\n", [key])


@pytest.mark.parametrize(
    "note",
    [
        "", "\n", "\n\n", "text\n", "text\n\n", "text\n\n\n", "text\n\n— a AAAA\n", "text\n\n— a AAAAAAA=",
        "text\n\n- a AAAAAAA=\n", "text\n\n—  AAAAAAA=\n", "text\n\n— a  AAAAAAA=\n", "te\rxt\n\n— a AAAAAAA=\n",
        "te\x00xt\n\n— a AAAAAAA=\n", "text\n\n— a+b AAAAAAA=\n", "text\n\n— a\u2003b AAAAAAA=\n",
        "text\n\n— a AAAAAAB=\n", "text\n\n— a AAAAAAA\n", "\ud800text\n\n— a AAAAAAA=\n",
        "text\n\n— a AAAAAAA=\n— a AAAAAAA=\n", "text\n\n" + "— a AAAAAAA=\n" * 33, "x" * 70_000 + "\n\n— a AAAAAAA=\n",
    ],
)  # fmt: skip
def test_other_notes_are_refused(note: str) -> None:
    with pytest.raises(MalformedProof):
        parse_note(note)


@given(st.text())
def test_any_text_is_a_note_in_its_one_spelling_or_malformed(text: str) -> None:
    for candidate in (text, text + "\n\n— a AAAAAAA=\n"):
        try:
            note = parse_note(candidate)
        except MalformedProof:
            continue
        assert note.unverified_text + "\n" + "".join(item.line for item in note.signatures) == candidate


@given(st.binary(max_size=80))
def test_base64_has_one_spelling(data: bytes) -> None:
    assert parse_b64(b64(data), size=len(data)) == data
    with pytest.raises(MalformedProof):
        parse_b64(b64(data), size=len(data) + 1)
    for other in (b64(data) + "\n", b64(data) + "=", " " + b64(data), b64(data) + "é"):
        with pytest.raises(MalformedProof):
            parse_b64(other)
