"""What can be done to the published files and to the anchor."""

from __future__ import annotations

from tests.attacks.log.world import Tampered, flip
from vault.proof.checkpoint import Checkpoint
from vault.proof.note import VerifierKey, sign_note
from vault.proof.tiles import Tile
from vault.seal.signing import SigningKey, new_seed


def tile_flipped(t: Tampered) -> None:
    path = t.folder / "public" / Tile(0, 0, t.world.checkpoint.size).path
    path.write_bytes(flip(path.read_bytes()))


def entries_flipped(t: Tampered) -> None:
    path = t.folder / "public" / Tile(None, 0, t.world.checkpoint.size).path
    path.write_bytes(flip(path.read_bytes()))


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
