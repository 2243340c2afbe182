"""What an outsider can do who has the database and no key."""

from __future__ import annotations

import re

from tests.attacks.log.world import Tampered, flip
from vault.encoding import parse_json
from vault.proof.leaf import LeafKind
from vault.proof.note import NoteSignature, VerifierKey, parse_note, sign_note
from vault.seal.dsse import PayloadType, parse_envelope, sign_record
from vault.seal.signing import SigningKey, new_seed


def entry_changed(t: Tampered) -> None:
    t.sql("UPDATE log_entry SET entry = ? WHERE leaf_index = ?", bytes(65), t.leaf(LeafKind.ANSWER))


def answer_deleted(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.ANSWER))


def denial_deleted(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.DENIAL))


def withdrawal_deleted(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.CONSENT, -1))


def two_leaves_swapped(t: Tampered) -> None:
    first, second = t.leaf(LeafKind.ANSWER), t.leaf(LeafKind.DENIAL)
    for old, new in ((first, -1), (second, first), (-1, second)):
        t.sql("UPDATE log_entry SET leaf_index = ? WHERE leaf_index = ?", new, old)


def leaf_added_unsigned(t: Tampered) -> None:
    t.add(LeafKind.ANSWER, {}, {})


def leaf_inserted_unsigned(t: Tampered) -> None:
    t.add(LeafKind.ANSWER, {}, {}, index=5)


def head_shortened(t: Tampered) -> None:
    t.sql("UPDATE log_head SET size = size - 1")


def edge_changed(t: Tampered) -> None:
    [[edge]] = t.sql("SELECT edge FROM log_head")
    t.sql("UPDATE log_head SET edge = ?", flip(edge))


def head_signed_by_another_key(t: Tampered) -> None:
    other = SigningKey(new_seed())
    [[note]] = t.sql("SELECT checkpoint FROM log_head")
    key = VerifierKey(t.key.name, other.public_key)
    t.sql("UPDATE log_head SET checkpoint = ?", sign_note(parse_note(note).unverified_text, key, other.sign))


def head_signature_flipped(t: Tampered) -> None:
    [[note]] = t.sql("SELECT checkpoint FROM log_head")
    parsed = parse_note(note)
    [line] = parsed.signatures
    bad = NoteSignature(line.name, line.key_id, flip(line.signature)).line
    t.sql("UPDATE log_head SET checkpoint = ?", f"{parsed.unverified_text}\n{bad}")


def head_of_another_size(t: Tampered) -> None:
    [[note]] = t.sql("SELECT checkpoint FROM log_head")
    size = t.world.checkpoint.size
    t.sql("UPDATE log_head SET checkpoint = ?", note.replace(f"\n{size}\n", f"\n{size - 1}\n"))


def public_opening_changed(t: Tampered) -> None:
    index = t.leaf(LeafKind.ANSWER)
    body = t.opening(index, "public_body")
    t.set_opening(index, "public_body", body.replace(b'"purpose"', b'"purpise"'))


def personal_opening_changed(t: Tampered) -> None:
    index = t.leaf(LeafKind.ANSWER)
    t.set_opening(index, "personal_body", t.opening(index, "personal_body").replace(b'"at":1', b'"at":2'))


def salt_changed(t: Tampered) -> None:
    index = t.leaf(LeafKind.DENIAL)
    t.set_opening(index, "personal_salt", flip(t.opening(index, "personal_salt")))


def opening_taken_from_another_leaf(t: Tampered) -> None:
    first, second = t.leaf(LeafKind.ANSWER), t.leaf(LeafKind.ANSWER, 1)
    for column in ("personal_salt", "personal_body"):
        t.set_opening(first, column, t.opening(second, column))


def _shut(t: Tampered, index: int) -> None:
    for column in ("personal_salt", "personal_body"):
        t.set_opening(index, column, None)


def denial_shut(t: Tampered) -> None:
    _shut(t, t.leaf(LeafKind.DENIAL))


def withdrawal_shut(t: Tampered) -> None:
    _shut(t, t.leaf(LeafKind.CONSENT, -1))


def answer_shut(t: Tampered) -> None:
    _shut(t, t.leaf(LeafKind.ANSWER))


def policy_set_swapped(t: Tampered) -> None:
    [[source]] = t.sql("SELECT source FROM policy_set")
    changed = bytes(source).replace(b"context.now >= context.consent.not_after", b"context.now >= 9000000000000000")
    assert changed != source
    t.sql("UPDATE policy_set SET source = ?", changed)


def manifest_signed_again(t: Tampered) -> None:
    for name, envelope in t.sql("SELECT id, envelope FROM model"):
        record = parse_json(parse_envelope(envelope).payload)
        forged = sign_record(PayloadType.MANIFEST, record, SigningKey(new_seed())).encoded
        t.sql("UPDATE model SET envelope = ? WHERE id = ?", forged, name)


def key_statement_by_another_operator(t: Tampered) -> None:
    for name, epoch, envelope in t.sql("SELECT name, epoch, envelope FROM key_statement"):
        record = parse_json(parse_envelope(envelope).payload)
        forged = sign_record(PayloadType.KEY, record, SigningKey(new_seed())).encoded
        t.sql("UPDATE key_statement SET envelope = ? WHERE name = ? AND epoch = ?", forged, name, epoch)


def consent_widened(t: Tampered) -> None:
    for rowid, envelope in t.sql("SELECT rowid, envelope FROM consent_version"):
        changed = re.sub(rb'("quota":\{[^}]*?:)[0-9]+', rb"\g<1>9", envelope)
        assert changed != envelope
        t.sql("UPDATE consent_version SET envelope = ? WHERE rowid = ?", changed, rowid)


def _of_flood(t: Tampered, place: int) -> int:
    [[row]] = t.sql("SELECT entry_id FROM log_member WHERE position = ?", place)
    return int(row)


def flood_denial_deleted(t: Tampered) -> None:
    t.sql("DELETE FROM log_member WHERE entry_id = ?", _of_flood(t, 1))


def flood_denial_shut(t: Tampered) -> None:
    opened = "UPDATE log_opening SET personal_salt = NULL, personal_body = NULL WHERE entry_id = ?"
    t.sql(opened, _of_flood(t, 1))


def flood_denial_exchanged(t: Tampered) -> None:
    """One is shown twice in the place of another, with all that opens it."""
    entry, other = _of_flood(t, 0), _of_flood(t, 1)
    t.sql("UPDATE log_entry SET entry = (SELECT entry FROM log_entry WHERE id = ?) WHERE id = ?", other, entry)
    halves = "public_salt, public_body, personal_salt, personal_body"
    [opened] = t.sql(f"SELECT {halves} FROM log_opening WHERE entry_id = ?", other)
    t.sql(f"UPDATE log_opening SET ({halves}) = (?, ?, ?, ?) WHERE entry_id = ?", *opened, entry)
