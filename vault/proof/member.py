"""Events that share a leaf: the leaf says how many there are and holds the root of the tree over their entries.

Denials of one company beyond a few in a minute are logged like this (`denials`). Each is committed to like a leaf,
so that it is opened, checked and erased like one; the count and the root show one that is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.leaf import ENTRY_BYTES, SALT_BYTES, Opening
from vault.proof.merkle import Edge, leaf_hash

FORMAT: Final = "twinvault-member/1"
MINUTE_S: Final = 60
_BEGINS: Final = b'{"format":"twinvault-member/'
_FIELDS: Final = {"format", "group", "leaf", "place", "public"}


@dataclass(frozen=True, slots=True)
class Member:
    """One event of a group, as a bundle carries it.

    Args:
        group: Index of the leaf that holds the group's root.
        position: Place in the group's tree, from 0.
        entry: 65 bytes, like a leaf's.
        public: Opens the public half.
        personal: Opens the personal half; None once erased.
    """

    group: int
    position: int
    entry: bytes
    public: Opening
    personal: Opening | None


def dump_member(member: Member) -> bytes:
    """Return an event of a group as a bundle carries it."""
    record: JsonObject = {
        "format": FORMAT,
        "group": member.group,
        "leaf": b64u(member.entry),
        "place": member.position,
        "public": _dump_opening(member.public),
    }
    if member.personal is not None:
        record["personal"] = _dump_opening(member.personal)
    return dump_json(record)


def is_member(record: bytes) -> bool:
    """Say whether a record of a bundle claims to be an event of a group."""
    return record.startswith(_BEGINS)


def parse_member(unverified_record: bytes) -> Member:
    """Read an event of a group; nothing in it is believed.

    Raises:
        MalformedProof: It is none.
    """
    try:
        record = parse_json(unverified_record)
        if record.keys() - {"personal"} != _FIELDS or record["format"] != FORMAT:
            raise MalformedProof(f"An event of a group is not one of the format {FORMAT}.")
        group, position = record["group"], record["place"]
        if not isinstance(group, int) or not isinstance(position, int):
            raise MalformedProof("An event of a group names no leaf or no place.")
        entry, public = parse_b64u(record["leaf"], size=ENTRY_BYTES), _parse_opening(record["public"])
        personal = _parse_opening(record["personal"]) if "personal" in record else None
    except MalformedInput as error:
        raise MalformedProof(f"An event of a group cannot be read: {error.detail}") from error
    return Member(group, position, entry, public, personal)


def members_by_group(unverified_records: Iterable[bytes]) -> Mapping[int, Sequence[Member]]:
    """Return a bundle's events of groups by the leaf of their group, in their order; malformed ones are left out."""
    found: defaultdict[int, list[Member]] = defaultdict(list)
    for record in filter(is_member, unverified_records):
        with suppress(MalformedProof):  # then its group lacks one, which is a failure
            member = parse_member(record)
            found[member.group].append(member)
    return {group: sorted(some, key=lambda member: member.position) for group, some in found.items()}


def verify_group(members: Sequence[Member], public: JsonObject) -> None:
    """Check that these are all events of a group.

    Args:
        members: In their order.
        public: The public half of the group's leaf.

    Raises:
        InvalidProof: One is missing, added, exchanged or moved.
    """
    count = public.get("count")
    in_order = all(member.position == place for place, member in enumerate(members))
    if count != len(members) or not in_order:  # never as long as the count says: it may say 2**53
        raise InvalidProof(f"The leaf stands for {count} events, but {len(members)} are shown, or not each once.")
    root = Edge().extend(leaf_hash(member.entry) for member in members).root
    if not members or public.get("root") != b64u(root):
        raise InvalidProof("The events shown are not those that the leaf stands for.")


def _dump_opening(opening: Opening) -> JsonObject:
    return {"salt": b64u(opening.salt), "body": b64u(opening.body)}


def _parse_opening(unverified: JsonValue) -> Opening:
    if not isinstance(unverified, dict) or unverified.keys() != {"salt", "body"}:
        raise MalformedProof("An opening is a salt and a body.")
    return Opening(parse_b64u(unverified["salt"], size=SALT_BYTES), parse_b64u(unverified["body"]))
