"""Entries hide both halves, open each alone and accept no other opening."""

import dataclasses

import pytest

from vault.errors import MalformedInput
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.leaf import ENTRY_BYTES, LeafKind, Opening, Part, make_entry, verify_opening

PUBLIC = {"kind": LeafKind.ANSWER.value, "purpose": "service", "period": "2026-11"}
PERSONAL = {"subject": "c3ViamVjdA", "consent_seq": 4}


def test_each_half_opens_without_the_other() -> None:
    entry, openings = make_entry(PUBLIC, PERSONAL)
    assert len(entry) == ENTRY_BYTES
    assert verify_opening(entry, Part.PUBLIC, openings.public) == PUBLIC
    assert verify_opening(entry, Part.PERSONAL, openings.personal) == PERSONAL


def test_equal_events_have_unlinkable_entries() -> None:
    first, _ = make_entry(PUBLIC, PERSONAL)
    second, _ = make_entry(PUBLIC, PERSONAL)
    assert first[1:33] != second[1:33]
    assert first[33:] != second[33:]


def test_the_halves_cannot_be_exchanged_even_when_equal() -> None:
    entry, openings = make_entry(PUBLIC, PUBLIC)
    for part, opening in [(Part.PUBLIC, openings.personal), (Part.PERSONAL, openings.public)]:
        with pytest.raises(InvalidProof):
            verify_opening(entry, part, opening)
    swapped = entry[:1] + entry[33:] + entry[1:33]
    with pytest.raises(InvalidProof):
        verify_opening(swapped, Part.PUBLIC, openings.personal)


def test_any_changed_bit_is_found() -> None:
    entry, openings = make_entry(PUBLIC, PERSONAL)
    for at in range(ENTRY_BYTES):
        changed = entry[:at] + bytes([entry[at] ^ 4]) + entry[at + 1 :]
        part = Part.PERSONAL if at >= 33 else Part.PUBLIC
        with pytest.raises(InvalidProof):
            verify_opening(changed, part, getattr(openings, part))
    opening = openings.public
    for at in range(64):
        salt = opening.salt[:at] + bytes([opening.salt[at] ^ 1]) + opening.salt[at + 1 :]
        with pytest.raises(InvalidProof):
            verify_opening(entry, Part.PUBLIC, dataclasses.replace(opening, salt=salt))
    with pytest.raises(InvalidProof):
        verify_opening(entry, Part.PUBLIC, dataclasses.replace(opening, body=opening.body + b" "))


def test_bytes_cannot_move_between_salt_and_body() -> None:
    entry, openings = make_entry(PUBLIC, PERSONAL)
    opening = openings.public
    for moved in (
        Opening(opening.salt[:-1], opening.salt[-1:] + opening.body),
        Opening(opening.salt + opening.body[:1], opening.body[1:]),
    ):
        with pytest.raises(MalformedProof, match="salt"):
            verify_opening(entry, Part.PUBLIC, moved)


@pytest.mark.parametrize("entry", [b"", b"\x01" * 64, b"\x02" + b"\x00" * 64, b"\x01" * 66])
def test_other_entries_are_refused(entry: bytes) -> None:
    with pytest.raises(MalformedProof, match="entry"):
        verify_opening(entry, Part.PUBLIC, Opening(bytes(64), b"{}"))


@pytest.mark.parametrize("public", [{}, {"kind": "gossip"}, {"kind": ["answer"]}, {"kind": "answer", "x": 1.5}])
def test_a_public_half_names_a_known_kind_and_is_plain(public: dict) -> None:
    with pytest.raises(MalformedInput):
        make_entry(public, {})


def test_an_opening_shows_nothing_in_a_log_line() -> None:
    _, openings = make_entry(PUBLIC, PERSONAL)
    assert "subject" not in repr(openings)
    assert "salt" not in repr(openings)
