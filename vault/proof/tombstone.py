"""Tombstones: proof that an opening is missing because it was erased, and not because somebody hides it.

What was erased on one day is one group: a Merkle tree over salted commitments, whose root is a leaf of the
log. The leaves of the tree stand in the order of their hashes, so a place tells nothing; a group does not tell
whose openings it holds, nor how many people's. It names the erasures of people that it follows from, all of its
day by one kind of author: without one, a service could bury what it would rather not show. Whose order it was,
`vault.proof.ordered` checks.

Source: RFC 6962 section 2.1, for the tree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.leaf import ENTRY_BYTES, LeafKind
from vault.proof.merkle import leaf_hash, verify_inclusion
from vault.proof.ordered import AUTHORS, author_of, verify_ordered
from vault.proof.ordered import Shown as ShownOrders
from vault.seal.ids import ID_BYTES

SALT_BYTES: Final = 32
FORMAT: Final = "twinvault-tombstone/1"
_FIELDS: Final = {"format", "leaf", "member", "group", "salt", "position", "size", "path", "subject", "subject_salt"}
_BEGINS: Final = b'{"format":"twinvault-tombstone/'


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Where one erased opening lies in its day's group.

    Args:
        leaf: Index of the leaf whose personal half can no longer be opened, or whose group holds such an event.
        member: Which event of the leaf's group, from 1; 0 for the leaf itself.
        group: Index of the leaf that holds the group's root.
        salt: Hides which leaves a group holds from whoever has only its root, 32 bytes.
        position: Place in the group's tree.
        size: How many openings the group holds.
        path: Sibling hashes up to the root.
        subject: To whom the event is bound, where this person ordered it and the holder may know; else empty.
        subject_salt: What opens that; empty with it.
    """

    leaf: int
    member: int
    group: int
    salt: bytes
    position: int
    size: int
    path: tuple[bytes, ...]
    subject: bytes = b""
    subject_salt: bytes = b""


def tombstone_hash(salt: bytes, entry: bytes) -> bytes:
    """Return the hash under which an erased opening stands in its group.

    Args:
        salt: 32 random bytes.
        entry: The 65-byte log entry; its personal commitment counts.
    """
    if len(salt) != SALT_BYTES or len(entry) != ENTRY_BYTES:
        raise MalformedProof("A tombstone has a salt of 32 bytes and is about an entry of 65.")
    return leaf_hash(salt + entry[33:])


def dump_tombstone(tombstone: Tombstone) -> bytes:
    """Return a tombstone as a bundle carries it."""
    return dump_json(
        {
            "format": FORMAT,
            "leaf": tombstone.leaf,
            "member": tombstone.member,
            "group": tombstone.group,
            "salt": b64u(tombstone.salt),
            "position": tombstone.position,
            "size": tombstone.size,
            "path": [b64u(node) for node in tombstone.path],
            "subject": b64u(tombstone.subject),
            "subject_salt": b64u(tombstone.subject_salt),
        }
    )


def is_tombstone(record: bytes) -> bool:
    """Say whether a record of a bundle claims to be a tombstone."""
    return record.startswith(_BEGINS)


def parse_tombstone(unverified_record: bytes) -> Tombstone:
    """Read a tombstone; whether it holds is for `verify_tombstone`.

    Raises:
        MalformedProof: It is none.
    """
    try:
        record = parse_json(unverified_record)
        if record.keys() != _FIELDS or record["format"] != FORMAT or not isinstance(record["path"], list):
            raise MalformedProof(f"A tombstone is not one of the format {FORMAT}.")
        counts = ("leaf", "member", "group", "position", "size")
        leaf, member, group, position, size = (_count(record[name]) for name in counts)
        salt = parse_b64u(record["salt"], size=SALT_BYTES)
        path = tuple(parse_b64u(node, size=32) for node in record["path"])
        subject, subject_salt = parse_b64u(record["subject"]), parse_b64u(record["subject_salt"])
    except MalformedInput as error:
        raise MalformedProof(f"A tombstone cannot be read: {error.detail}") from error
    if len(subject) not in {0, ID_BYTES}:
        raise MalformedProof(f"A tombstone's subject has {ID_BYTES} bytes, or is left out.")
    return Tombstone(leaf, member, group, salt, position, size, path, subject, subject_salt)


def tombstones_by_place(unverified_records: Iterable[bytes]) -> Mapping[tuple[int, int], Sequence[Tombstone]]:
    """Return the tombstones among a bundle's records by the `leaf` and `member` that they are about, malformed ones not."""
    found: defaultdict[tuple[int, int], list[Tombstone]] = defaultdict(list)
    for record in filter(is_tombstone, unverified_records):
        with suppress(MalformedProof):  # then nothing accounts for its leaf, which is a failure
            tombstone = parse_tombstone(record)
            found[tombstone.leaf, tombstone.member].append(tombstone)
    return found


def verify_tombstone(tombstone: Tombstone, entry: bytes, group_public: JsonObject) -> None:
    """Check that a group accounts for an entry's missing opening.

    Args:
        tombstone: From `parse_tombstone`.
        entry: The entry whose opening is missing, already shown to be in the log.
        group_public: The public half of the group's own leaf, already verified.

    Raises:
        InvalidProof: The group does not hold this entry.
        MalformedProof: The group's leaf holds no root.
    """
    if group_public.get("count") != tombstone.size:
        raise InvalidProof("A tombstone names another size than its group has.")
    try:
        root = parse_b64u(group_public.get("root"), size=32)
    except MalformedInput as error:
        raise MalformedProof("The leaf of a group of tombstones holds no root.") from error
    hashed = tombstone_hash(tombstone.salt, entry)
    verify_inclusion(hashed, tombstone.position, tombstone.size, tombstone.path, root)


class _Event(Protocol):
    @property
    def index(self) -> int: ...

    @property
    def public(self) -> JsonObject: ...


class Shown(ShownOrders, Protocol):
    """What this step needs of the evidence: the bundle's tombstones, and its leaves that are verified already."""

    @property
    def tombstones(self) -> Mapping[tuple[int, int], Sequence[Tombstone]]:
        """From `tombstones_by_place`."""

    @property
    def entries(self) -> Mapping[int, bytes]:
        """The entry of each leaf, by its index."""

    @property
    def unordered(self) -> Mapping[int, str]:
        """From `why_unordered`."""

    @property
    def events(self) -> Mapping[LeafKind, Sequence[_Event]]:
        """Verified leaves, by kind."""


def verify_erased(shown: Shown, leaf: int, entry: bytes, public: JsonObject, member: int = 0) -> None:
    """Check that some tombstone of a bundle accounts for a missing opening: step 12 of the verifier.

    Args:
        shown: The evidence.
        leaf: Index of the leaf whose opening is missing, or whose group holds such an event.
        entry: The 65 bytes that were committed to, shown to be in the log.
        public: The event's public half, verified.
        member: Which event of the group, from 1; 0 for the leaf itself.

    Raises:
        InvalidProof: None does, or whoever it says ordered that did not.
    """
    groups = {group.index: group.public for group in shown.events[LeafKind.TOMBSTONES]}
    for tombstone in shown.tombstones.get((leaf, member), ()):
        if tombstone.group in groups:
            if tombstone.group in shown.unordered:
                raise InvalidProof(shown.unordered[tombstone.group])
            verify_tombstone(tombstone, entry, groups[tombstone.group])
            return verify_ordered(shown, tombstone, str(groups[tombstone.group]["author"]), public)
    raise InvalidProof("The personal half is not opened, and no tombstone in a logged group accounts for it.")


def why_unordered(shown: Shown) -> dict[int, str]:
    """Return why groups of a bundle account for nothing: a sentence by their leaf.

    A group follows from erasures of people by its author, logged before it, that no other group names.
    """
    erasures = {b64u(leaf_hash(shown.entries[one.index])): one for one in shown.events[LeafKind.ERASURE]}
    groups = {group.index: group.public for group in shown.events[LeafKind.TOMBSTONES]}
    named = {group: _names(public.get("orders")) for group, public in groups.items()}
    times = Counter(name for names in named.values() for name in names)
    why: dict[int, str] = {}
    for group, names in named.items():
        orders = [erasures.get(name) for name in names]
        if not names:
            why[group] = "The tombstone's group follows from no erasure: nobody ordered what it accounts for."
        elif any(one is None or one.index > group or one.public.get("scope") != "person" for one in orders):
            why[group] = "The tombstone's group follows from something that erased no person before it."
        elif any(not _is_by(groups[group].get("author"), one.public) for one in orders if one):
            why[group] = "The tombstone's group follows from an erasure by somebody else than it says."
        elif any(times[name] > 1 for name in names):
            why[group] = "Two groups of tombstones follow from one erasure."
    return why


def _is_by(author: JsonValue | None, erasure: JsonObject) -> bool:
    return author in AUTHORS and author == author_of(erasure)


def _names(value: JsonValue | None) -> list[str]:
    return [*map(str, value)] if isinstance(value, list) else []


def _count(value: JsonValue) -> int:
    if not isinstance(value, int) or value < 0:
        raise MalformedProof("A tombstone's leaf, group, position and size are whole numbers.")
    return value
