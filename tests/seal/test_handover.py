"""Handovers, reseals and rows: swapped seeds, substituted ciphertexts, widened terms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.seal.world import WORLD, mutated, seed
from vault.encoding import dump_json, parse_json
from vault.seal.blob import parse_blob, sign_blob
from vault.seal.derive import derive, imprint_key, pairwise_key, subject_of
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.errors import SealError
from vault.seal.framing import frames
from vault.seal.handover import (
    Handover,
    KeyKind,
    VerifiedHandover,
    open_handover,
    parse_handover,
    reseal,
    seal_handover,
    verify_handover,
    verify_reseal,
)
from vault.seal.identity import Identity
from vault.seal.ids import CompartmentId, VaultId, sha256
from vault.seal.row import open_row, parse_row, seal_row, verify_row

OWNER_KEY, WORKER_KEY = WORLD.owner.public_key, WORLD.worker.public_key
NEXT = Identity(seed("next processor"))
SEEDS = {WORLD.compartment_id: WORLD.compartment_seed}
OTHER_ID = CompartmentId(seed("other id")[:16])


def verified(data: bytes | None = None) -> VerifiedHandover:
    return verify_handover(parse_handover(data or WORLD.handover()), WORLD.vault, OWNER_KEY)


def test_a_handover_opens_to_its_seeds() -> None:
    assert open_handover(verified(), WORLD.processor, WORLD.ring.compartments) == SEEDS


def test_an_imprint_handover_carries_imprint_keys() -> None:
    key = imprint_key(WORLD.compartment_seed)
    handover = verified(WORLD.handover(key, KeyKind.IMPRINT))
    assert open_handover(handover, WORLD.processor, WORLD.ring.compartments) == {WORLD.compartment_id: key}
    assert key != WORLD.compartment_seed


def test_a_seed_that_is_not_the_rings_is_refused() -> None:
    with pytest.raises(SealError, match="public key in the ring"):
        open_handover(verified(WORLD.handover(seed("swapped"))), WORLD.processor, WORLD.ring.compartments)


def test_a_substituted_ciphertext_is_refused() -> None:
    handover = verified()
    own = frames(PayloadType.HANDOVER.encode(), b"{}")
    for ciphertext in (
        WORLD.processor.recipient.seal(seed("swapped"), own),
        parse_handover(WORLD.handover()).ciphertext,
    ):
        with pytest.raises(SealError, match="not the one that was signed"):
            parse_handover(Handover(handover.envelope, handover.terms, ciphertext).encoded)


def test_a_ciphertext_opens_under_its_own_terms_only() -> None:
    handover = parse_handover(WORLD.handover())
    record = parse_json(handover.envelope.payload) | {"not_after": 1_999_999_999}
    longer = Handover(sign_record(PayloadType.HANDOVER, record, WORLD.owner), handover.terms, handover.ciphertext)
    with pytest.raises(SealError, match="does not open"):
        open_handover(verified(longer.encoded), WORLD.processor, WORLD.ring.compartments)


def test_another_signer_vault_or_identity_is_refused() -> None:
    handover = parse_handover(WORLD.handover())
    with pytest.raises(SealError):
        verify_handover(handover, WORLD.vault, WORLD.stranger.public_key)
    with pytest.raises(SealError, match="another vault"):
        verify_handover(handover, VaultId(bytes(16)), OWNER_KEY)
    with pytest.raises(SealError, match="another identity"):
        open_handover(verified(), NEXT, WORLD.ring.compartments)
    with pytest.raises(SealError, match="does not list"):
        open_handover(verified(), WORLD.processor, {})


def test_terms_that_no_receiver_accepts_are_not_sealed() -> None:
    recipient = WORLD.processor.recipient
    for terms in (
        replace(WORLD.terms, compartments=()),
        replace(WORLD.terms, compartments=(WORLD.compartment_id,) * 2),
        replace(WORLD.terms, compartments=(OTHER_ID,)),
        replace(WORLD.terms, not_after_s=WORLD.terms.not_before_s),
        replace(WORLD.terms, to=NEXT.recipient.key_hash),
        replace(WORLD.terms, ring_version=0),
    ):
        with pytest.raises(SealError):
            seal_handover(terms, SEEDS, recipient, WORLD.owner)


def test_a_chain_of_reseals_carries_the_keys_on() -> None:
    first = verified()
    second = reseal(first, SEEDS, NEXT.recipient, WORLD.worker)
    checked = verify_reseal(parse_handover(second.encoded), first, WORKER_KEY)
    assert open_handover(checked, NEXT, WORLD.ring.compartments) == SEEDS
    third = reseal(checked, SEEDS, WORLD.processor.recipient, WORLD.worker)
    with pytest.raises(SealError, match="carry on"):
        verify_reseal(third, first, WORKER_KEY)  # a link is missing
    assert verify_reseal(third, checked, WORKER_KEY).terms.compartments == first.terms.compartments


def test_a_reseal_cannot_widen_or_pass_for_the_owners() -> None:
    first = verified()
    good = reseal(first, SEEDS, NEXT.recipient, WORLD.worker)
    with pytest.raises(SealError):
        verify_handover(good, WORLD.vault, OWNER_KEY)
    with pytest.raises(SealError):
        verify_reseal(good, first, WORLD.stranger.public_key)
    for wider in (
        replace(first.terms, not_after_s=first.terms.not_after_s + 1),
        replace(first.terms, kind=KeyKind.IMPRINT),
        replace(first.terms, compartments=(*first.terms.compartments, OTHER_ID)),
        replace(first.terms, consent=WORLD.vault),  # type: ignore[arg-type]
    ):
        forged = reseal(
            VerifiedHandover(replace(first, terms=wider)), {**SEEDS, OTHER_ID: seed("x")}, NEXT.recipient, WORLD.worker
        )
        with pytest.raises(SealError, match="carry on"):
            verify_reseal(forged, first, WORKER_KEY)


def test_a_reseal_after_an_erasure_leaves_the_key_out() -> None:
    other = replace(WORLD.compartment, id=OTHER_ID)
    terms = replace(WORLD.terms, compartments=(WORLD.compartment_id, OTHER_ID))
    keys = {**SEEDS, OTHER_ID: WORLD.compartment_seed}
    first = verified(seal_handover(terms, keys, WORLD.processor.recipient, WORLD.owner).encoded)
    kept = verify_reseal(reseal(first, SEEDS, NEXT.recipient, WORLD.worker), first, WORKER_KEY)
    ring = {**WORLD.ring.compartments, OTHER_ID: other}
    assert open_handover(kept, NEXT, ring) == SEEDS
    with pytest.raises(SealError):
        reseal(first, {}, NEXT.recipient, WORLD.worker)


def test_a_malformed_handover_under_a_good_signature_raises_nothing_else() -> None:
    handover = parse_handover(WORLD.handover())
    for record in mutated(parse_json(handover.envelope.payload)):
        try:
            envelope = sign_record(PayloadType.HANDOVER, record, WORLD.owner)  # type: ignore[arg-type]
            WORLD.read_handover(frames(envelope.encoded, handover.ciphertext))
        except SealError:
            continue
        pytest.fail("a changed handover was opened")


def test_a_malformed_header_under_a_good_signature_raises_nothing_else() -> None:
    for data, payload_type, signer, reading in (
        (WORLD.batch(), PayloadType.BATCH, WORLD.device_key, WORLD.read_batch),
        (WORLD.row(), PayloadType.ROW, WORLD.worker, WORLD.read_row),
    ):
        blob = parse_blob(data, 1 << 20)
        for record in mutated(parse_json(blob.header)):
            with pytest.raises(SealError):
                reading(sign_blob(payload_type, dump_json(record), blob.ciphertext, signer).encoded)  # type: ignore[arg-type]


def test_a_row_opens_under_its_imprint_key_and_header_only() -> None:
    data = WORLD.row()
    assert WORLD.read_row(data) == b"noisy numbers"
    row = verify_row(parse_row(data), WORKER_KEY)
    assert (row.header, row.digest) == (WORLD.row_header, sha256(data))
    for key in (WORLD.compartment_seed, imprint_key(seed("other"))):
        with pytest.raises(SealError, match="does not open"):
            open_row(row, key)
    moved = seal_row(b"", replace(WORLD.row_header, index=1), imprint_key(WORLD.compartment_seed), WORLD.worker)
    forged = sign_blob(PayloadType.ROW, parse_blob(moved, 1 << 20).header, row.blob.ciphertext, WORLD.worker)
    with pytest.raises(SealError, match="does not open"):
        open_row(verify_row(parse_row(forged.encoded), WORKER_KEY), imprint_key(WORLD.compartment_seed))
    with pytest.raises(SealError, match="signature"):
        verify_row(parse_row(data), WORLD.stranger.public_key)


def test_each_grantee_sees_another_key() -> None:
    keys = [pairwise_key(seed("pairwise"), grantee).public_key for grantee in ("a", "b", "a")]
    assert keys[0] == keys[2] != keys[1]
    assert subject_of(keys[0]) == sha256(keys[0])[:16]
    with pytest.raises(SealError, match="too short"):
        derive(b"short", "imprint")
