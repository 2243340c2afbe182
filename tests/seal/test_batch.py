"""Batches and uploads: what a server, or a device that is not this one, can try."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.seal.world import CATEGORY, PERIOD, WORLD, seed, traces
from vault.schema.category import Category
from vault.seal.batch import VerifiedBatch, open_batch, parse_batch, seal_batch, verify_batch
from vault.seal.blob import Blob, parse_blob, sign_blob
from vault.seal.device import ChainHead, Device, DeviceRole
from vault.seal.dsse import PayloadType
from vault.seal.errors import SealError
from vault.seal.identity import Identity
from vault.seal.ids import CompartmentId, VaultId, sha256
from vault.seal.recipient import Recipient
from vault.seal.ring import Compartment
from vault.seal.upload import (
    Acknowledgement,
    HeadList,
    encode_upload,
    parse_upload,
    sign_acknowledgement,
    verify_acknowledgement,
    verify_head_list,
    verify_upload,
)

KEY_HASH = WORLD.compartment.recipient.key_hash
DEVICE_KEY = WORLD.device_key.public_key
OPENER = Identity(WORLD.compartment_seed)


def check(data: bytes, after: ChainHead | None = None) -> object:
    return verify_batch(parse_batch(data), WORLD.vault, KEY_HASH, DEVICE_KEY, after)


@pytest.fixture(scope="module")
def chain() -> list[bytes]:
    batches: list[bytes] = []
    for _ in range(3):
        batches.append(WORLD.batch(parse_batch(batches[-1]).head if batches else None))
    return batches


def test_a_batch_opens_to_its_traces() -> None:
    assert WORLD.read_batch(WORLD.batch()) == traces()


def test_a_chain_is_accepted_in_order_only(chain: list[bytes]) -> None:
    heads = [parse_batch(data).head for data in chain]
    for data, after in zip(chain, [None, *heads], strict=False):
        assert check(data, after)
    for data, after in [(chain[0], heads[0]), (chain[0], heads[2]), (chain[2], heads[0]), (chain[2], None)]:
        with pytest.raises(SealError, match="does not follow"):
            check(data, after)


def test_a_batch_after_a_replaced_one_is_refused(chain: list[bytes]) -> None:
    other_first = parse_batch(WORLD.batch()).head
    with pytest.raises(SealError, match="does not follow"):
        check(chain[1], other_first)


def test_a_batch_is_for_one_vault_one_key_and_one_device() -> None:
    batch = parse_batch(WORLD.batch())
    with pytest.raises(SealError, match="another vault"):
        verify_batch(batch, VaultId(bytes(16)), KEY_HASH, DEVICE_KEY, None)
    with pytest.raises(SealError, match="another vault"):
        verify_batch(batch, WORLD.vault, sha256(b"swapped key"), DEVICE_KEY, None)
    with pytest.raises(SealError, match="another device"):
        verify_batch(batch, WORLD.vault, KEY_HASH, WORLD.stranger.public_key, None)


def test_a_stolen_ciphertext_signed_by_another_device_does_not_open() -> None:
    stolen, own = parse_batch(WORLD.batch()), parse_batch(WORLD.batch(device=WORLD.stranger))
    forged = sign_blob(PayloadType.BATCH, own.blob.header, stolen.blob.ciphertext, WORLD.stranger).encoded
    batch = verify_batch(parse_batch(forged), WORLD.vault, KEY_HASH, WORLD.stranger.public_key, None)
    with pytest.raises(SealError, match="does not open"):
        open_batch(batch, OPENER, CATEGORY)


def test_a_substituted_ciphertext_is_refused_before_it_is_opened() -> None:
    batch = parse_batch(WORLD.batch())
    forged = WORLD.compartment.recipient.seal(b"anything", b"anything")
    with pytest.raises(SealError, match="signature"):
        check(replace(batch.blob, ciphertext=forged).encoded)


def test_a_row_signature_does_not_pass_for_a_batch_signature() -> None:
    batch = parse_batch(WORLD.batch())
    forged = sign_blob(PayloadType.ROW, batch.blob.header, batch.blob.ciphertext, WORLD.device_key)
    with pytest.raises(SealError, match="signature"):
        check(forged.encoded)


def test_another_spelling_of_a_header_is_refused() -> None:
    blob = parse_blob(WORLD.batch(), 1 << 20)
    header = blob.header.replace(b",", b", ", 1)
    with pytest.raises(SealError, match="one spelling"):
        parse_batch(sign_blob(PayloadType.BATCH, header, blob.ciphertext, WORLD.device_key).encoded)


def test_another_suite_or_version_is_refused() -> None:
    blob = parse_blob(WORLD.batch(), 1 << 20)
    for old, new in [(b"aes-256-gcm", b"chacha20-poly1305"), (b'"v":1', b'"v":2')]:
        with pytest.raises(SealError, match="version or suite"):
            parse_batch(Blob(blob.header.replace(old, new), blob.ciphertext, blob.signature).encoded)


def test_an_opener_of_another_compartment_is_refused() -> None:
    batch = verify_batch(parse_batch(WORLD.batch()), WORLD.vault, KEY_HASH, DEVICE_KEY, None)
    with pytest.raises(SealError, match="another compartment key"):
        open_batch(batch, WORLD.processor, CATEGORY)


def test_a_trace_of_another_category_is_not_sealed() -> None:
    with pytest.raises(SealError, match="category"):
        seal_batch(traces(1, Category("pd:Health")), WORLD.vault, WORLD.compartment, WORLD.device_key, None)


def test_the_traces_take_the_category_of_the_compartment() -> None:
    health = Compartment(
        WORLD.compartment_id, Category("pd:Health"), PERIOD, 1, WORLD.compartment.public, WORLD.compartment.locked_hash
    )
    data = seal_batch(traces(2, Category("pd:Health")), WORLD.vault, health, WORLD.device_key, None)
    batch = verify_batch(parse_batch(data), WORLD.vault, KEY_HASH, DEVICE_KEY, None)
    assert open_batch(batch, OPENER, CATEGORY) == traces(2)


def test_no_text_of_a_trace_stands_in_a_batch() -> None:
    data = WORLD.batch()
    assert all(word not in data for word in (b"till", "Brötchen".encode(), b"gpc:", b"line-", b"pd:"))


def test_a_degenerate_public_key_is_refused() -> None:
    public = WORLD.compartment.public[:1184] + bytes(32)
    with pytest.raises(SealError, match="degenerate"):
        Recipient(public).seal(b"seed", b"")


def upload(
    *batches: bytes, head: ChainHead | None = None, device: Device | None = None
) -> tuple[list[VerifiedBatch], HeadList]:
    head_list = WORLD.head_list(head or parse_batch(batches[-1]).head)
    keys = {WORLD.compartment_id: KEY_HASH}
    body = encode_upload(batches, head_list)
    return verify_upload(parse_upload(body), WORLD.vault, device or WORLD.device, keys, {})


def test_an_upload_of_a_chain_is_accepted(chain: list[bytes]) -> None:
    verified, head_list = upload(*chain)
    assert [batch.seq for batch in verified] == [1, 2, 3]
    assert head_list.heads == {WORLD.compartment_id: parse_batch(chain[2]).head}


def test_a_dropped_batch_shows_against_the_head_list(chain: list[bytes]) -> None:
    with pytest.raises(SealError, match="does not end with"):
        upload(*chain[:2], head=parse_batch(chain[2]).head)
    with pytest.raises(SealError, match="does not follow"):
        upload(chain[0], chain[2])
    with pytest.raises(SealError, match="does not follow"):
        upload(chain[1], chain[0])


def test_a_revoked_device_cannot_upload(chain: list[bytes]) -> None:
    accepted = {WORLD.compartment_id: parse_batch(chain[1]).head}
    revoked = Device(DEVICE_KEY, DeviceRole.SOURCE, accepted)
    with pytest.raises(SealError, match="revoked"):
        upload(*chain, device=revoked)
    assert [revoked.may_have_sealed(WORLD.compartment_id, seq) for seq in (1, 2, 3)] == [True, True, False]
    assert not revoked.may_have_sealed(CompartmentId(bytes(16)), 1)


def test_a_compartment_outside_the_ring_is_refused(chain: list[bytes]) -> None:
    body = parse_upload(WORLD.upload)
    with pytest.raises(SealError, match="does not list"):
        verify_upload(body, WORLD.vault, WORLD.device, {}, {})


def test_a_head_list_of_another_device_or_vault_is_refused() -> None:
    head = ChainHead(1, seed("head"))
    with pytest.raises(SealError):
        verify_head_list(WORLD.head_list(head, WORLD.stranger), WORLD.vault, DEVICE_KEY)
    with pytest.raises(SealError, match="another vault or device"):
        verify_head_list(WORLD.head_list(head, WORLD.stranger), WORLD.vault, WORLD.stranger.public_key)
    with pytest.raises(SealError, match="another vault or device"):
        verify_head_list(WORLD.head_list(head), VaultId(bytes(16)), DEVICE_KEY)


def test_too_many_batches_and_none_are_refused() -> None:
    head_list = WORLD.head_list(ChainHead(1, seed("head")))
    with pytest.raises(SealError, match="no batch"):
        parse_upload(encode_upload([], head_list))
    with pytest.raises(SealError, match="1,024"):
        parse_upload(encode_upload([WORLD.batch()] * 1025, head_list))


def test_an_acknowledgement_is_the_services() -> None:
    heads = {WORLD.compartment_id: ChainHead(3, seed("head"))}
    said = Acknowledgement(WORLD.vault, WORLD.device.id, sha256(WORLD.upload), 1_767_225_601, heads)
    envelope = sign_acknowledgement(said, WORLD.worker)
    assert verify_acknowledgement(envelope, WORLD.worker.public_key) == said
    with pytest.raises(SealError):
        verify_acknowledgement(envelope, WORLD.stranger.public_key)
