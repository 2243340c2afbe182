"""Whatever is done to database, files, notes, keys or history, somebody who does not trust the service notices.

An outsider has the files but no key. An insider is the service itself: it signs whatever it likes with
the log's key, so that its own checks pass; then the verifier finds what does not fit together, and the
witness and everybody who saw an earlier checkpoint that history changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.attacks.log.world import Tampered, World, lived
from tests.consent_kit import NOW
from vault.clock import unix_s
from vault.encoding import b64u, parse_json
from vault.proof.checkpoint import Checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.note import NoteSignature, VerifierKey, parse_note, sign_note
from vault.proof.report import Step
from vault.proof.tiles import Tile
from vault.seal.dsse import PayloadType, parse_envelope, sign_record
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey, new_seed

Attack = Callable[[Tampered], None]


@pytest.fixture(scope="module")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with lived(sqlite_template, tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def tampered(world: World, tmp_path: Path) -> Tampered:
    return Tampered.copy(world, tmp_path)


def _flip(data: bytes, at: int = -1) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + (data[at + 1 :] if at != -1 else b"")


def _opening(t: Tampered, index: int, column: str) -> bytes:
    [[value]] = t.sql(
        f"SELECT {column} FROM log_opening JOIN log_entry ON id = entry_id WHERE leaf_index = ?",
        index,
    )
    return bytes(value)


def _set_opening(t: Tampered, index: int, column: str, value: bytes | None) -> None:
    t.sql(
        f"UPDATE log_opening SET {column} = ? WHERE entry_id = (SELECT id FROM log_entry WHERE leaf_index = ?)",
        value,
        index,
    )


def _personal(t: Tampered, kind: LeafKind, place: int = 0) -> dict[str, object]:
    return dict(parse_json(_opening(t, t.leaf(kind, place), "personal_body")))


def _public(t: Tampered, kind: LeafKind, place: int = 0) -> dict[str, object]:
    public = dict(parse_json(_opening(t, t.leaf(kind, place), "public_body")))
    del public["kind"]
    return public


# An outsider with the database


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
    t.sql("UPDATE log_head SET edge = ?", _flip(edge))


def head_signed_by_another_key(t: Tampered) -> None:
    other = SigningKey(new_seed())
    [[note]] = t.sql("SELECT checkpoint FROM log_head")
    key = VerifierKey(t.key.name, other.public_key)
    t.sql("UPDATE log_head SET checkpoint = ?", sign_note(parse_note(note).unverified_text, key, other.sign))


def head_signature_flipped(t: Tampered) -> None:
    [[note]] = t.sql("SELECT checkpoint FROM log_head")
    parsed = parse_note(note)
    [line] = parsed.signatures
    bad = NoteSignature(line.name, line.key_id, _flip(line.signature)).line
    t.sql("UPDATE log_head SET checkpoint = ?", f"{parsed.unverified_text}\n{bad}")


def head_of_another_size(t: Tampered) -> None:
    [[note]] = t.sql("SELECT checkpoint FROM log_head")
    size = t.world.checkpoint.size
    t.sql("UPDATE log_head SET checkpoint = ?", note.replace(f"\n{size}\n", f"\n{size - 1}\n"))


def public_opening_changed(t: Tampered) -> None:
    index = t.leaf(LeafKind.ANSWER)
    body = _opening(t, index, "public_body")
    _set_opening(t, index, "public_body", body.replace(b'"purpose"', b'"purpise"'))


def personal_opening_changed(t: Tampered) -> None:
    index = t.leaf(LeafKind.ANSWER)
    _set_opening(t, index, "personal_body", _opening(t, index, "personal_body").replace(b'"at":1', b'"at":2'))


def salt_changed(t: Tampered) -> None:
    index = t.leaf(LeafKind.DENIAL)
    _set_opening(t, index, "personal_salt", _flip(_opening(t, index, "personal_salt")))


def opening_taken_from_another_leaf(t: Tampered) -> None:
    first, second = t.leaf(LeafKind.ANSWER), t.leaf(LeafKind.ANSWER, 1)
    for column in ("personal_salt", "personal_body"):
        _set_opening(t, first, column, _opening(t, second, column))


def _shut(t: Tampered, index: int) -> None:
    for column in ("personal_salt", "personal_body"):
        _set_opening(t, index, column, None)


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
    [[envelope]] = t.sql("SELECT envelope FROM model")
    record = parse_json(parse_envelope(envelope).payload)
    t.sql("UPDATE model SET envelope = ?", sign_record(PayloadType.MANIFEST, record, SigningKey(new_seed())).encoded)


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


# The insider, who holds the log's key


def answer_removed(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.ANSWER))
    t.sign_again()


def denial_removed(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.DENIAL))
    t.sign_again()


def withdrawal_removed(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.CONSENT, -1))
    t.sign_again()


def last_leaves_cut_off(t: Tampered) -> None:
    for _ in range(3):
        t.remove(t.world.checkpoint.size - 1 - _)
    t.sign_again()


def answer_inserted_late(t: Tampered) -> None:
    public, personal = _public(t, LeafKind.ANSWER), _personal(t, LeafKind.ANSWER)
    t.add(LeafKind.ANSWER, public, personal, index=t.leaf(LeafKind.ANSWER) + 1)
    t.sign_again()


def _answered_again(t: Tampered, consent: bytes, **changed: object) -> None:
    """Log another answer under a consent, like its first, rightly numbered and chained, and sign."""
    chain: list[tuple[int, bytes]] = []
    for (index,) in t.sql("SELECT leaf_index FROM log_entry WHERE kind IN ('consent', 'answer', 'denial') ORDER BY 1"):
        body = _opening(t, index, "personal_body")
        if parse_json(body).get("consent") == b64u(consent):
            chain.append((index, body))
    first, said = next((index, body) for index, body in chain if b"quota_left" in body)
    place = {"consent_seq": len(chain) + 1, "prev": b64u(sha256(chain[-1][1]))}
    left = parse_json(said)["quota_left"]
    assert isinstance(left, int)
    public = dict(parse_json(_opening(t, first, "public_body")))
    del public["kind"]
    public |= public_changes(changed)  # type: ignore[arg-type]
    personal = parse_json(said) | {"quota_left": max(0, left - 1)} | place | personal_changes(changed)  # type: ignore[operator]
    t.add(LeafKind.ANSWER, public, personal)
    t.sign_again()


def personal_changes(changed: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in changed.items() if key not in {"model", "manifest", "policy_set", "purpose"}}


def public_changes(changed: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in changed.items() if key in {"model", "manifest", "policy_set", "purpose"}}


def answered_again_rightly(t: Tampered) -> None:
    """No attack: it shows that what follows is noticed for what it changes, and for nothing else."""
    _answered_again(t, t.world.site.own.consent_id)


def answered_after_the_withdrawal(t: Tampered) -> None:
    _answered_again(t, t.world.consent.consent_id)


def answered_dated_back(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, at=unix_s(NOW) - 3600)


def answered_for_another_purpose(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, purpose="marketing")


def answered_by_an_unpublished_model(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, model=b64u(bytes(32)))


def answered_by_unpublished_rules(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, policy_set=b64u(bytes(32)))


def answered_without_a_decision(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, decision=b64u(bytes(32)))


def answered_somebody_else(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, requester="B" * 22)


def denied_for_another_reason(t: Tampered) -> None:
    index = t.leaf(LeafKind.DENIAL)
    public, personal = _public(t, LeafKind.DENIAL), _personal(t, LeafKind.DENIAL)
    t.remove(index)
    t.add(LeafKind.DENIAL, public, {**personal, "rules": ["purpose-not-covered"]}, index=index)  # type: ignore[dict-item]
    t.sign_again()


def rewritten_without_its_chain(t: Tampered) -> None:
    """Nothing that any step reads is changed, but the next event of the consent names what stood here."""
    index = t.leaf(LeafKind.ANSWER)
    public, personal = _public(t, LeafKind.ANSWER), _personal(t, LeafKind.ANSWER)
    t.remove(index)
    t.add(LeafKind.ANSWER, public, {**personal, "note": "another"}, index=index)  # type: ignore[dict-item]
    t.sign_again()


def rewritten_with_another_quota(t: Tampered) -> None:
    index = t.leaf(LeafKind.ANSWER)
    public, personal = _public(t, LeafKind.ANSWER), _personal(t, LeafKind.ANSWER)
    t.remove(index)
    t.add(LeafKind.ANSWER, public, {**personal, "quota_left": 7}, index=index)  # type: ignore[dict-item]
    t.sign_again()


def begun_anew(t: Tampered) -> None:
    t.sql("DELETE FROM log_opening")
    t.sql("DELETE FROM log_entry")
    t.add(LeafKind.VAULT_GENESIS, {}, {})
    t.sign_again()


def set_back_whole(t: Tampered) -> None:
    """Yesterday's database, whole and rightly signed."""
    size = t.world.checkpoint.size
    for index in range(size - 1, size - 5, -1):
        t.remove(index)
    t.sign_again()


# Published files and the anchor


def tile_flipped(t: Tampered) -> None:
    path = t.folder / "public" / Tile(0, 0, t.world.checkpoint.size).path
    path.write_bytes(_flip(path.read_bytes()))


def entries_flipped(t: Tampered) -> None:
    path = t.folder / "public" / Tile(None, 0, t.world.checkpoint.size).path
    path.write_bytes(_flip(path.read_bytes()))


def entries_shortened(t: Tampered) -> None:
    path = t.folder / "public" / Tile(None, 0, t.world.checkpoint.size).path
    path.write_bytes(path.read_bytes()[:-67])


def published_head_forged(t: Tampered) -> None:
    other = SigningKey(new_seed())
    text = Checkpoint(t.key.name, 9, bytes(32)).text
    forged = sign_note(text, VerifierKey(t.key.name, other.public_key), other.sign)
    (t.folder / "public/checkpoint").write_text(forged)


def published_head_of_a_longer_log(t: Tampered) -> None:
    text = Checkpoint(t.key.name, t.world.checkpoint.size + 1, bytes(32)).text
    (t.folder / "public/checkpoint").write_text(sign_note(text, t.key, t.service.log_key.sign))


def anchor_of_another_log(t: Tampered) -> None:
    text = Checkpoint(t.key.name, 3, bytes(32)).text
    (t.folder / "anchor").write_text(sign_note(text, t.key, t.service.log_key.sign))


S = Step
OUTSIDER: Final[dict[Attack, tuple[set[str], set[Step]]]] = {
    entry_changed: ({"boot", "files"}, {S.INCLUSION}),
    answer_deleted: ({"boot", "files"}, set()),
    denial_deleted: ({"boot", "files"}, set()),
    withdrawal_deleted: ({"boot", "files"}, set()),
    two_leaves_swapped: ({"boot", "files"}, {S.INCLUSION}),
    leaf_added_unsigned: ({"boot"}, set()),
    leaf_inserted_unsigned: ({"boot", "files"}, {S.INCLUSION}),
    head_shortened: ({"boot"}, set()),
    edge_changed: ({"boot"}, set()),
    head_signed_by_another_key: ({"boot", "files", "verifier"}, {S.CHECKPOINT}),
    head_signature_flipped: ({"boot", "files", "verifier"}, {S.CHECKPOINT}),
    head_of_another_size: ({"boot", "files", "verifier", "witness"}, {S.CHECKPOINT}),
    public_opening_changed: ({"verifier"}, {S.OPENINGS}),
    personal_opening_changed: ({"verifier"}, {S.OPENINGS}),
    salt_changed: ({"verifier"}, {S.OPENINGS}),
    opening_taken_from_another_leaf: ({"verifier"}, {S.OPENINGS}),
    denial_shut: ({"verifier"}, {S.ERASURE}),
    withdrawal_shut: ({"verifier"}, {S.ERASURE, S.ORDER}),
    answer_shut: ({"verifier"}, {S.ERASURE}),
    policy_set_swapped: ({"verifier"}, {S.DECISION}),
    manifest_signed_again: ({"verifier"}, {S.CERTIFICATE}),
    key_statement_by_another_operator: ({"verifier"}, {S.KEYS}),
    consent_widened: ({"verifier"}, {S.CONSENT}),
}
INSIDER: Final[dict[Attack, tuple[set[str], set[Step]]]] = {
    answer_removed: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    denial_removed: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    withdrawal_removed: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    last_leaves_cut_off: ({"anchor", "files", "witness"}, set()),
    answer_inserted_late: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    answered_after_the_withdrawal: ({"verifier"}, {S.ORDER}),
    answered_dated_back: ({"verifier"}, {S.TIME}),
    answered_for_another_purpose: ({"verifier"}, {S.DECISION}),
    answered_by_an_unpublished_model: ({"verifier"}, {S.CERTIFICATE}),
    answered_by_unpublished_rules: ({"verifier"}, {S.DECISION}),
    answered_without_a_decision: ({"verifier"}, {S.DECISION}),
    answered_somebody_else: ({"verifier"}, {S.DECISION}),
    denied_for_another_reason: ({"anchor", "files", "witness", "verifier"}, {S.DECISION, S.WITNESSES}),
    rewritten_without_its_chain: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    rewritten_with_another_quota: ({"anchor", "files", "witness", "verifier"}, {S.QUOTA, S.WITNESSES}),
    begun_anew: ({"anchor", "files", "witness"}, set()),
    set_back_whole: ({"anchor", "files", "witness"}, set()),
}
FILES: Final[dict[Attack, tuple[set[str], set[Step]]]] = {
    tile_flipped: ({"files"}, set()),
    entries_flipped: ({"files"}, set()),
    entries_shortened: ({"files"}, set()),
    published_head_forged: ({"files"}, set()),
    published_head_of_a_longer_log: ({"files"}, set()),
    anchor_of_another_log: ({"anchor"}, set()),
}
ATTACKS: Final = {attack.__name__: (attack, *expected) for attack, expected in (OUTSIDER | INSIDER | FILES).items()}


def test_an_untouched_copy_is_noticed_by_nobody(tampered: Tampered) -> None:
    assert tampered.caught() == (set(), set())
    assert tampered.head() == tampered.world.checkpoint


def test_what_the_insider_could_honestly_have_logged_is_noticed_by_nobody(tampered: Tampered) -> None:
    answered_again_rightly(tampered)
    assert tampered.caught() == (set(), set())


def test_there_are_at_least_thirty() -> None:
    assert len(ATTACKS) >= 30


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_noticed(tampered: Tampered, name: str) -> None:
    attack, by, steps = ATTACKS[name]
    attack(tampered)
    noticed, failed = tampered.caught()
    assert by <= noticed, f"{by - noticed} did not notice; {noticed} did"
    assert steps <= failed
