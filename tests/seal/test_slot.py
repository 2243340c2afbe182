"""Unlocking: passphrase, recovery code, account, kit."""

from __future__ import annotations

import pytest

from tests.seal.world import WORLD, seed
from vault.seal.account import OwnerSeeds, open_account, seal_account, verify_account
from vault.seal.errors import SealError
from vault.seal.ids import VaultId, sha256
from vault.seal.kit import RecoveryKit, dump_kit, new_kit, parse_kit
from vault.seal.slot import (
    Slot,
    Stretch,
    new_device_secret,
    open_slot,
    parse_slot,
    passphrase_key,
    recovery_key,
    seal_slot,
)
from vault.seal.version import NO_PREV

SECRET = seed("device secret")[:16]


def test_a_passphrase_opens_with_its_device_secret_only() -> None:
    key = passphrase_key("Grüße aus dem Garten", SECRET)
    slot = parse_slot(seal_slot(WORLD.root, key).encoded)
    assert slot.slot_id == sha256(key.locator)
    assert open_slot(slot, passphrase_key("Gru\u0308ße aus dem Garten", SECRET)) == WORLD.root  # typed decomposed
    for passphrase, secret in [("Grüße aus dem garten", SECRET), ("Grüße aus dem Garten", seed("other")[:16])]:
        with pytest.raises(SealError):
            open_slot(slot, passphrase_key(passphrase, secret))


@pytest.mark.parametrize(("memory_kib", "passes", "lanes"), [(65_535, 3, 4), (65_536, 2, 4), (65_536, 3, 3), (8, 1, 1)])
def test_a_cheaper_stretch_is_refused(memory_kib: int, passes: int, lanes: int) -> None:
    with pytest.raises(SealError, match="at least 64 MiB"):
        Stretch(memory_kib, passes, lanes)


def test_an_empty_passphrase_or_short_secret_is_refused() -> None:
    for passphrase, secret in [("", SECRET), ("x", b""), ("x", seed("long")), ("\ud800", SECRET)]:
        with pytest.raises(SealError):
            passphrase_key(passphrase, secret)


def test_a_recovery_slot_is_not_a_passphrase_slot() -> None:
    key = recovery_key(seed("recovery"))
    slot = WORLD.slot()
    assert open_slot(slot, key) == WORLD.root
    assert len({key.locator, key.unlock, key.slot_id}) == 3
    with pytest.raises(SealError, match="does not belong"):
        open_slot(slot, recovery_key(seed("other")))
    with pytest.raises(SealError, match="does not open"):
        open_slot(Slot(slot.slot_id, seal_slot(WORLD.root, recovery_key(seed("other"))).sealed), key)
    with pytest.raises(SealError):
        recovery_key(SECRET)
    with pytest.raises(SealError):
        seal_slot(b"short", key)


def test_the_server_learns_neither_locator_nor_key_from_a_slot() -> None:
    key = recovery_key(seed("recovery"))
    data = WORLD.slot().encoded
    assert key.locator not in data
    assert key.unlock not in data
    assert WORLD.root not in data


def test_an_account_opens_under_its_root_only() -> None:
    owner_key = WORLD.owner.public_key
    account = verify_account(WORLD.account(), owner_key, WORLD.vault)
    assert open_account(account, WORLD.root, owner_key) == OwnerSeeds(seed("owner"), seed("pairwise"))
    with pytest.raises(SealError, match="does not open"):
        open_account(account, seed("other root"), owner_key)
    with pytest.raises(SealError, match="another vault"):
        verify_account(WORLD.account(), owner_key, VaultId(bytes(16)))
    stranger = seal_account(
        OwnerSeeds(seed("stranger"), seed("pairwise")), WORLD.root, vault=WORLD.vault, version=1, prev=NO_PREV
    )
    with pytest.raises(SealError):
        verify_account(stranger, owner_key, WORLD.vault)
    other = verify_account(stranger, WORLD.stranger.public_key, WORLD.vault)
    with pytest.raises(SealError, match="another signing seed"):
        open_account(other, WORLD.root, owner_key)


def test_a_kit_survives_paper() -> None:
    kit = new_kit(new_device_secret())
    text = dump_kit(kit)
    assert parse_kit(text) == kit
    title, *lines = text.splitlines()
    typed = [line.lower().replace("-", "  ").replace("0", "o").replace("1", "l") for line in lines]
    typed = [line.replace("next owner key".replace("1", "l"), "next owner key") for line in typed]
    assert parse_kit("\n\n".join([title, *reversed(typed)])) == kit


def test_every_single_typing_error_in_a_line_is_noticed() -> None:
    title, *lines = dump_kit(RecoveryKit(seed("a"), seed("b"), SECRET)).splitlines()
    for at, line in enumerate(lines):
        name, _, code = line.partition(": ")

        def read(typed: str, at: int = at, name: str = name) -> RecoveryKit:
            return parse_kit("\n".join([title, *lines[:at], f"{name}: {typed}", *lines[at + 1 :]]))

        for place, letter in enumerate(code):
            for typed in "0Z7":
                if letter not in ("-", " ", typed):
                    with pytest.raises(SealError, match="typing error"):
                        read(code[:place] + typed + code[place + 1 :])
        for broken in (code[:-1], code + "0", "", code.replace("-", "U", 1)):
            with pytest.raises(SealError):
                read(broken)


def test_a_line_of_the_kit_is_not_taken_for_another() -> None:
    kit = RecoveryKit(seed("a"), seed("b"), SECRET)
    title, code, key, secret = dump_kit(kit).splitlines()
    swapped = [title, "recovery code:" + key.partition(":")[2], "next owner key:" + code.partition(":")[2], secret]
    for lines in (swapped, [title, code, key], [title, code, key, secret, secret], [code, key, secret]):
        with pytest.raises(SealError):
            parse_kit("\n".join(lines))
