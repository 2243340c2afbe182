"""Bundles: the file that carries logged leaves, their openings and the records they name.

One JSON object a line: first the header with the signed checkpoint, then leaves in ascending order
of index, then records. Leaves name records by SHA-256, so a record that nobody altered is found and
one that somebody altered is missing. A company's answer and an auditor's month are the same format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import cast

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.errors import MalformedProof
from vault.proof.leaf import Opening
from vault.proof.witness import Witnessed

FORMAT = "twinvault-bundle/v1"
_HEADER = {"format", "checkpoint", "leaves", "records", "complete_from", "complete_to", "withheld"}
MAX_LINE_BYTES = 8 * 2**20
MAX_BUNDLE_BYTES = 512 * 2**20


class Withheld(StrEnum):
    """What a bundle leaves out on purpose, so that its absence hides nothing else.

    `EVENT` is the personal half of the events of every consent that the auditor has not chosen from a listing.
    """

    ANSWER = "answer"
    EVENT = "event"
    QUESTION = "question"


@dataclass(frozen=True)
class LoggedLeaf:
    """One leaf as a bundle carries it, not yet verified.

    Args:
        index: Leaf index, from zero.
        entry: The 65-byte log entry.
        path: Sibling hashes up to the bundle's checkpoint.
        public: Opening of the public half.
        personal: Opening of the personal half, where the holder may have it.
    """

    index: int
    entry: bytes
    path: tuple[bytes, ...]
    public: Opening
    personal: Opening | None


@dataclass(frozen=True)
class Bundle:
    """A parsed bundle, not yet verified.

    Args:
        checkpoint: Signed note that covers every leaf.
        leaves: Ascending by index.
        records: What the leaves name, by SHA-256 of the bytes.
        complete_from: First index of the range that the sender claims to be whole; leaves may be
            missing only outside of it.
        complete_to: Index after the last of that range.
        withheld: What this holder is not shown; the verifier counts it as withheld, never as checked.
        witnessed: A checkpoint that witnesses cosigned, with the proof that this bundle's one continues it.
    """

    checkpoint: str
    leaves: tuple[LoggedLeaf, ...]
    records: Mapping[bytes, bytes]
    complete_from: int = 0
    complete_to: int = 0
    withheld: frozenset[Withheld] = frozenset()
    witnessed: Witnessed | None = None


def dump_bundle(bundle: Bundle) -> bytes:
    """Return the bundle as a file."""
    return b"".join(bundle_lines(bundle))


def parse_bundle(unverified_data: bytes) -> Bundle:
    """Read a bundle.

    Raises:
        MalformedProof: It is cut short, out of order, too large, or not a bundle at all; the
            sentence names the line.
    """
    if len(unverified_data) > MAX_BUNDLE_BYTES:
        raise MalformedProof(f"A bundle is larger than {MAX_BUNDLE_BYTES} bytes; ask for a shorter time.")
    *lines, rest = unverified_data.split(b"\n")
    if rest or not lines:
        raise MalformedProof("The bundle is cut short: its last line has no end.")
    header = _object(lines[0], 1, _HEADER, optional={"witnessed"})
    if header["format"] != FORMAT:
        raise MalformedProof(f"Line 1 of the bundle does not name the format {FORMAT}.")
    count, total = _count(header, "leaves"), _count(header, "records")
    if len(lines) != 1 + count + total:
        raise MalformedProof(f"The bundle has {len(lines)} lines where its header announces {1 + count + total}.")
    leaves = tuple(_leaf(line, number) for number, line in enumerate(lines[1 : 1 + count], 2))
    for number, (before, after) in enumerate(pairwise(leaves), 3):
        if after.index <= before.index:
            raise MalformedProof(f"Line {number} of the bundle: leaves must ascend by index.")
    records: dict[bytes, bytes] = {}
    for number, line in enumerate(lines[1 + count :], 2 + count):
        data = _binary(_object(line, number, {"record"}), "record", number)
        records[hashlib.sha256(data).digest()] = data
    return Bundle(
        checkpoint=_text(header, "checkpoint", 1),
        leaves=leaves,
        records=records,
        complete_from=_count(header, "complete_from"),
        complete_to=_count(header, "complete_to"),
        withheld=_withheld(header["withheld"]),
        witnessed=_witnessed(header["witnessed"]) if "witnessed" in header else None,
    )


def bundle_lines(bundle: Bundle) -> Iterator[bytes]:
    """Yield the file's lines, so that a large bundle is sent without being held twice."""
    header: JsonObject = {
        "format": FORMAT,
        "checkpoint": bundle.checkpoint,
        "leaves": len(bundle.leaves),
        "records": len(bundle.records),
        "complete_from": bundle.complete_from,
        "complete_to": bundle.complete_to,
        "withheld": cast("list[JsonValue]", sorted(bundle.withheld)),
    }
    if bundle.witnessed is not None:
        proof = cast("list[JsonValue]", [b64u(item) for item in bundle.witnessed.proof])
        header["witnessed"] = {"checkpoint": bundle.witnessed.note, "proof": proof}
    yield dump_json(header) + b"\n"
    # The rest is base64url and numbers: written out here it costs a fraction of what an encoder takes to look at it.
    for leaf in bundle.leaves:
        path = ",".join([f'"{b64u(item)}"' for item in leaf.path])
        personal = "" if leaf.personal is None else f'"personal":{_dump_opening(leaf.personal)},'
        places = f'"entry":"{b64u(leaf.entry)}","index":{leaf.index},"path":[{path}]'
        yield f'{{{places},{personal}"public":{_dump_opening(leaf.public)}}}\n'.encode()
    for digest in sorted(bundle.records):
        yield f'{{"record":"{b64u(bundle.records[digest])}"}}\n'.encode()


def records_by_hash(records: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return records under the names by which leaves find them."""
    return {hashlib.sha256(record).digest(): record for record in records}


def _leaf(line: bytes, number: int) -> LoggedLeaf:
    record = _object(line, number, {"index", "entry", "path", "public"}, optional={"personal"})
    path = record["path"]
    if not isinstance(path, list):
        raise MalformedProof(f"Line {number} of the bundle: the path must be a list.")
    return LoggedLeaf(
        index=_count(record, "index"),
        entry=_binary(record, "entry", number),
        path=tuple(_decode(item, number) for item in path),
        public=_opening(record["public"], number),
        personal=_opening(record["personal"], number) if "personal" in record else None,
    )


def _witnessed(value: JsonValue) -> Witnessed:
    if not isinstance(value, dict) or set(value) != {"checkpoint", "proof"} or not isinstance(value["proof"], list):
        raise MalformedProof("Line 1 of the bundle: what is witnessed is a checkpoint and a proof.")
    return Witnessed(_text(value, "checkpoint", 1), tuple(_decode(item, 1) for item in value["proof"]))


def _withheld(value: JsonValue) -> frozenset[Withheld]:
    named = [kind for kind in Withheld if isinstance(value, list) and kind in value]
    if named != value:
        raise MalformedProof("The bundle's header must list what it withholds: each kind once, by name.")
    return frozenset(named)


def _dump_opening(opening: Opening) -> str:
    return f'{{"body":"{b64u(opening.body)}","salt":"{b64u(opening.salt)}"}}'


def _opening(value: JsonValue, number: int) -> Opening:
    if not isinstance(value, dict) or set(value) != {"salt", "body"}:
        raise MalformedProof(f"Line {number} of the bundle: an opening has salt and body.")
    return Opening(_binary(value, "salt", number), _binary(value, "body", number))


def _object(
    line: bytes, number: int, fields: set[str], optional: frozenset[str] | set[str] = frozenset()
) -> JsonObject:
    if len(line) > MAX_LINE_BYTES:
        raise MalformedProof(f"Line {number} of the bundle is longer than {MAX_LINE_BYTES} bytes.")
    try:
        record = parse_json(line)
    except MalformedInput as error:
        raise MalformedProof(f"Line {number} of the bundle: {error.detail}") from error
    if not fields <= set(record) <= fields | optional:
        raise MalformedProof(f"Line {number} of the bundle must have the fields {', '.join(sorted(fields))}.")
    return record


def _count(record: JsonObject, name: str) -> int:
    value = record[name]
    if not isinstance(value, int) or value < 0:
        raise MalformedProof(f"The bundle's {name} must be a whole number.")
    return value


def _text(record: JsonObject, name: str, number: int) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise MalformedProof(f"Line {number} of the bundle: {name} must be a text.")
    return value


def _binary(record: JsonObject, name: str, number: int) -> bytes:
    return _decode(record[name], number)


def _decode(value: JsonValue, number: int) -> bytes:
    try:
        return parse_b64u(value)
    except MalformedInput as error:
        raise MalformedProof(f"Line {number} of the bundle: {error.detail}") from error
