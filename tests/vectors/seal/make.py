"""Writes the vectors beside it: `python -m tests.vectors.seal.make`.

Names, keys and contents are fixed; HPKE and the wraps draw fresh salts, so the ciphertexts change
with each run. The files are kept so that a later version must still read what this one wrote.
Binary values are hexadecimal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.seal.world import WORLD, seed
from vault.seal.batch import parse_batch
from vault.seal.blob import sign_blob
from vault.seal.device import ChainHead
from vault.seal.dsse import Envelope, PayloadType, sign_record, unverified_record
from vault.seal.handover import parse_handover
from vault.seal.identity import Identity
from vault.seal.row import parse_row
from vault.seal.upload import encode_upload

HERE = Path(__file__).parent
Case = tuple[str, str, bytes]


def flip(data: bytes, at: int) -> bytes:
    """Flip the lowest bit of one byte."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def common(entry: str, data: bytes) -> Iterator[Case]:
    """What every object must refuse."""
    yield entry, "ok", data
    yield f"{entry}-empty", "bad-seal", b""
    yield f"{entry}-cut-short", "bad-seal", data[:-1]
    yield f"{entry}-longer", "bad-seal", data + b"\0"
    yield f"{entry}-first-length", "bad-seal", b"\xff" + data[1:]
    yield f"{entry}-bit-in-type-or-header", "bad-seal", flip(data, 12)
    yield f"{entry}-bit-in-middle", "bad-seal", flip(data, len(data) // 2)
    yield f"{entry}-bit-in-last-byte", "bad-seal", flip(data, len(data) - 1)


def resigned(envelope: Envelope, **changes: object) -> bytes:
    """The record with other fields under the owner's good signature."""
    record = {**unverified_record(envelope), **changes}
    return sign_record(envelope.payload_type, record, WORLD.owner).encoded  # type: ignore[arg-type]


def batches() -> Iterator[Case]:
    """A first batch, and what another device or a server makes of it."""
    data = WORLD.batch()
    batch = parse_batch(data)
    yield from common("batch", data)
    yield "batch-second-as-first", "bad-seal", WORLD.batch(batch.head)
    yield "batch-of-another-device", "bad-seal", WORLD.batch(device=WORLD.stranger)
    stolen = sign_blob(PayloadType.BATCH, batch.blob.header, batch.blob.ciphertext, WORLD.stranger)
    yield "batch-signed-by-another-device", "bad-seal", stolen.encoded
    as_row = sign_blob(PayloadType.ROW, batch.blob.header, batch.blob.ciphertext, WORLD.device_key)
    yield "batch-signed-as-row", "bad-seal", as_row.encoded
    unsealed = WORLD.compartment.recipient.seal(b"\x01" + bytes(255), b"another header")
    substituted = sign_blob(PayloadType.BATCH, batch.blob.header, unsealed, WORLD.device_key)
    yield "batch-sealed-under-another-header", "bad-seal", substituted.encoded


def uploads() -> Iterator[Case]:
    """Two batches with their head list."""
    first = WORLD.batch()
    second = WORLD.batch(parse_batch(first).head)
    end = parse_batch(second).head
    yield from common("upload", encode_upload([first, second], WORLD.head_list(end)))
    yield "upload-dropped-last", "bad-seal", encode_upload([first], WORLD.head_list(end))
    yield "upload-dropped-first", "bad-seal", encode_upload([second], WORLD.head_list(end))
    yield "upload-reordered", "bad-seal", encode_upload([second, first], WORLD.head_list(end))
    yield "upload-replayed", "bad-seal", encode_upload([first, first], WORLD.head_list(parse_batch(first).head))
    forged = WORLD.head_list(ChainHead(2, seed("forged")))
    yield "upload-forged-head", "bad-seal", encode_upload([first, second], forged)
    stranger = WORLD.head_list(end, WORLD.stranger)
    yield "upload-head-list-of-another-device", "bad-seal", encode_upload([first, second], stranger)


def handovers() -> Iterator[Case]:
    """One seed to the processor."""
    data = WORLD.handover()
    yield from common("handover", data)
    yield "handover-of-a-seed-not-in-the-ring", "bad-seal", WORLD.handover(seed("swapped"))
    handover = parse_handover(data)
    other = replace(handover, ciphertext=parse_handover(WORLD.handover()).ciphertext)
    yield "handover-with-another-ciphertext", "bad-seal", other.encoded
    longer = {**unverified_record(handover.envelope), "not_after": 1_999_999_999}
    renewed = replace(handover, envelope=sign_record(PayloadType.HANDOVER, longer, WORLD.owner))
    yield "handover-terms-changed-under-its-ciphertext", "bad-seal", renewed.encoded
    stranger = sign_record(PayloadType.HANDOVER, unverified_record(handover.envelope), WORLD.stranger)
    yield "handover-signed-by-another", "bad-seal", replace(handover, envelope=stranger).encoded


def rows() -> Iterator[Case]:
    """One imprint row."""
    data = WORLD.row()
    yield from common("row", data)
    blob = parse_row(data).blob
    yield (
        "row-signed-by-another",
        "bad-seal",
        sign_blob(PayloadType.ROW, blob.header, blob.ciphertext, WORLD.stranger).encoded,
    )
    moved = blob.header.replace(b'"index":0', b'"index":1')
    yield "row-moved", "bad-seal", sign_blob(PayloadType.ROW, moved, blob.ciphertext, WORLD.worker).encoded


def rings() -> Iterator[Case]:
    """A page and a head."""
    yield from common("page", WORLD.page.encoded)
    yield "page-of-another-vault", "bad-seal", resigned(WORLD.page, vault="A" * 22)
    yield "page-with-a-past-in-version-1", "bad-seal", resigned(WORLD.page, prev="B" * 42 + "A")
    yield "page-of-no-month", "bad-seal", resigned(WORLD.page, period="2026-13")
    yield "page-with-an-unknown-field", "bad-seal", resigned(WORLD.page, more=1)
    yield from common("head", WORLD.head.encoded)
    yield "head-of-another-vault", "bad-seal", resigned(WORLD.head, vault="A" * 22)
    yield "head-version-0", "bad-seal", resigned(WORLD.head, version=0)
    key = unverified_record(WORLD.head)["devices"]
    stolen = {"A" * 22: next(iter(key.values()))} if isinstance(key, dict) else {}
    yield "head-device-under-another-id", "bad-seal", resigned(WORLD.head, devices=stolen)


def secrets() -> Iterator[Case]:
    """Slot and account."""
    yield from common("slot", WORLD.slot().encoded)
    yield from common("account", WORLD.account().encoded)
    yield "account-without-pairwise", "bad-seal", resigned(WORLD.account(), pairwise="")


def main() -> None:
    """Write one file per case."""
    for path in HERE.glob("*.txt"):
        path.unlink()
    for make in (batches, uploads, handovers, rows, rings, secrets):
        for name, expect, data in make():
            entry = name.split("-", 1)[0]
            text = f"entry: {entry}\nexpect: {expect}\ndata: {data.hex()}\n"
            (HERE / f"{name}.txt").write_text(text, "ascii")
    public = Identity(seed("processor")).recipient.public
    text = f"entry: identity\nexpect: ok\nseed: {seed('processor').hex()}\ndata: {public.hex()}\n"
    (HERE / "identity.txt").write_text(text, "ascii")


if __name__ == "__main__":
    main()
