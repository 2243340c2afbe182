"""The ring against a server that rolls it back, forks it, or swaps what it lists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.seal.world import CATEGORY, PERIOD, WORLD, drop_compartments, mutated, seed
from vault.encoding import b64u, dump_json, parse_json
from vault.schema.category import Category
from vault.schema.trace import periods_from
from vault.seal.device import ChainHead, Device, DeviceRole
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.errors import SealError
from vault.seal.ids import CompartmentId, VaultId
from vault.seal.ring import (
    MONTHS_AHEAD,
    Page,
    extend_page,
    new_compartment,
    open_seed,
    sign_page,
    verify_head,
    verify_page,
    verify_ring,
)
from vault.seal.version import NO_PREV, Remembered, verify_successor
from vault.seal.wrap import lock_short, unlock_short

OWNER_KEY = WORLD.owner.public_key
HEALTH = Category("pd:Health")


def test_a_page_and_head_read_as_they_were_signed() -> None:
    assert WORLD.ring.compartments == {WORLD.compartment_id: WORLD.compartment}
    assert WORLD.ring.head.devices == {WORLD.device.id: WORLD.device}
    assert WORLD.ring.pages[PERIOD].current(CATEGORY) == WORLD.compartment


def test_a_rolled_back_or_forked_ring_is_noticed() -> None:
    second = WORLD.sign_head(2, WORLD.head.digest)
    seen = Remembered(2, second.digest)
    assert verify_head(second, OWNER_KEY, WORLD.vault, seen).version == 2
    third = WORLD.sign_head(3, second.digest)
    assert verify_head(third, OWNER_KEY, WORLD.vault, seen).version == 3
    with pytest.raises(SealError, match="older"):
        verify_head(WORLD.head, OWNER_KEY, WORLD.vault, seen)
    with pytest.raises(SealError, match="same version"):
        verify_head(WORLD.sign_head(2, seed("fork")), OWNER_KEY, WORLD.vault, seen)
    with pytest.raises(SealError, match="does not follow"):
        verify_head(WORLD.sign_head(3, seed("fork")), OWNER_KEY, WORLD.vault, seen)


def test_another_vaults_or_signers_ring_is_refused() -> None:
    for call in (verify_head, verify_page):
        envelope = WORLD.head if call is verify_head else WORLD.page
        with pytest.raises(SealError, match="another vault"):
            call(envelope, OWNER_KEY, VaultId(bytes(16)))
        with pytest.raises(SealError):
            call(envelope, WORLD.stranger.public_key, WORLD.vault)


def test_a_page_that_the_head_does_not_name_is_refused() -> None:
    page = verify_page(WORLD.page, OWNER_KEY, WORLD.vault)
    newer = sign_page(drop_compartments(page, WORLD.page.digest, [WORLD.compartment_id]), WORLD.owner)
    with pytest.raises(SealError, match="head names"):
        verify_ring(WORLD.head, [newer], OWNER_KEY, WORLD.vault)
    assert verify_page(newer, OWNER_KEY, WORLD.vault).compartments == {}


def test_a_page_names_a_category_and_epoch_once() -> None:
    twin = replace(WORLD.compartment, id=CompartmentId(seed("twin")[:16]))
    page = Page(WORLD.vault, 1, NO_PREV, PERIOD, {WORLD.compartment_id: WORLD.compartment, twin.id: twin})
    with pytest.raises(SealError, match="twice"):
        verify_page(sign_page(page, WORLD.owner), OWNER_KEY, WORLD.vault)


def test_a_device_id_is_the_hash_of_its_key() -> None:
    record = parse_json(WORLD.head.payload)
    devices = record["devices"]
    assert isinstance(devices, dict)
    stolen = {b64u(WORLD.device.id): {"key": b64u(WORLD.stranger.public_key), "role": "source"}}
    forged = sign_record(PayloadType.RING_HEAD, {**record, "devices": stolen}, WORLD.owner)  # type: ignore[dict-item]
    with pytest.raises(SealError, match="certifies"):
        verify_head(forged, OWNER_KEY, WORLD.vault)


def test_a_revoked_device_keeps_its_accepted_heads() -> None:
    revoked = Device(WORLD.device.public_key, DeviceRole.SOURCE, {WORLD.compartment_id: ChainHead(4, seed("head"))})
    head = verify_head(WORLD.sign_head(2, WORLD.head.digest, [revoked]), OWNER_KEY, WORLD.vault)
    assert head.devices[revoked.id] == revoked


def test_a_year_ahead_then_a_new_epoch() -> None:
    for period in periods_from(PERIOD, MONTHS_AHEAD)[:2]:
        page, locked = extend_page(
            None, NO_PREV, vault=WORLD.vault, period=period, categories=[CATEGORY, HEALTH], root=WORLD.root
        )
        envelope = sign_page(page, WORLD.owner)
        assert verify_page(envelope, OWNER_KEY, WORLD.vault) == page
        renewed, more = extend_page(
            page, envelope.digest, vault=WORLD.vault, period=period, categories=[HEALTH], root=WORLD.root
        )
        new, old = renewed.current(HEALTH), page.current(HEALTH)
        assert new
        assert old
        assert (new.epoch, new.public != old.public, len(renewed.compartments)) == (2, True, 3)
        assert renewed.current(CATEGORY) == page.current(CATEGORY)
        old_seed = open_seed(WORLD.vault, old, WORLD.root, locked[old.id])
        assert open_seed(WORLD.vault, new, WORLD.root, more[new.id]) != old_seed
    assert periods_from(PERIOD, MONTHS_AHEAD)[-1] == "2026-12"


def test_a_swapped_locked_seed_is_refused() -> None:
    mine, locked = new_compartment(WORLD.vault, WORLD.root, CATEGORY, PERIOD, 1)
    _, other = new_compartment(WORLD.vault, WORLD.root, CATEGORY, PERIOD, 1)
    with pytest.raises(SealError, match="ring names"):
        open_seed(WORLD.vault, mine, WORLD.root, other)
    with pytest.raises(SealError, match="does not open"):
        open_seed(WORLD.vault, mine, seed("another root"), locked)
    with pytest.raises(SealError, match="public key"):
        open_seed(WORLD.vault, replace(mine, public=WORLD.compartment.public), WORLD.root, locked)


def test_a_short_key_opens_one_blob() -> None:
    locked = lock_short(seed("short"), b"locked seed", WORLD.compartment_id)
    assert unlock_short(seed("short"), locked, WORLD.compartment_id) == b"locked seed"
    for key, about in [(seed("other"), WORLD.compartment_id), (seed("short"), WORLD.vault)]:
        with pytest.raises(SealError):
            unlock_short(key, locked, about)


def test_publishing_is_compare_and_swap() -> None:
    stored = Remembered(3, seed("stored"))
    verify_successor(4, seed("stored"), stored)
    verify_successor(1, NO_PREV, None)
    for version, prev in [(4, seed("other")), (5, seed("stored")), (3, seed("stored")), (1, NO_PREV)]:
        with pytest.raises(SealError, match="does not follow"):
            verify_successor(version, prev, stored)


def test_a_first_version_has_no_past() -> None:
    for version, prev in [(1, seed("past")), (2, NO_PREV)]:
        with pytest.raises(SealError, match="contradict"):
            verify_head(WORLD.sign_head(version, prev), OWNER_KEY, WORLD.vault)


@pytest.mark.parametrize("kind", ["page", "head", "account"])
def test_a_malformed_record_under_a_good_signature_raises_nothing_else(kind: str) -> None:
    _, reading = WORLD.objects[kind]
    envelope = {"page": WORLD.page, "head": WORLD.head, "account": WORLD.account()}[kind]
    refused = 0
    for record in mutated(parse_json(envelope.payload)):
        try:
            reading(sign_record(envelope.payload_type, record, WORLD.owner).encoded)  # type: ignore[arg-type]
        except SealError:
            refused += 1
    assert refused > 50
    assert dump_json(parse_json(envelope.payload)) == envelope.payload
