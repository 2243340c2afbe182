"""Ways of altering bundles that two verifiers are held against, each by what it does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.proof.forge import flip
from vault.encoding import b64u
from vault.proof.bundle import Bundle, LoggedLeaf, Withheld, records_by_hash
from vault.proof.leaf import Opening
from vault.proof.member import dump_member, is_member, parse_member
from vault.proof.note import VerifierKey
from vault.proof.ordered import is_subject_erasure
from vault.proof.tombstone import dump_tombstone, is_tombstone, parse_tombstone
from vault.seal.signing import SigningKey, new_seed


def with_leaf(bundle: Bundle, at: int, change: Callable[[LoggedLeaf], LoggedLeaf]) -> Bundle:
    return replace(bundle, leaves=(*bundle.leaves[:at], change(bundle.leaves[at]), *bundle.leaves[at + 1 :]))


def notes(note: str) -> dict[str, str]:
    origin, size, root, *rest = note.split("\n")
    signature = rest[-2]
    return {
        "empty": "",
        "no note": "x",
        "cut": note[:-2],
        "larger": "\n".join([origin, str(int(size) + 1), root, *rest]),
        "extended": "\n".join([origin, size, root, "more", *rest]),
        "signed twice": f"{note}{signature}\n",
        "with a stranger's line": f"{note}— other.example AAAAAAAA\n",
        "with a line that is none": f"{note}- other.example AAAAAAAA\n",
        "with a short line": f"{note}— other.example AAAA\n",
        "with a control character": note.replace("\n", "\r\n", 1),
        "with a wrong signature": note.replace(signature[-8:], "AAAAAA==", 1),
        "in a spelling of its own": note.replace(signature[-1], "", 1) if signature.endswith("=") else note + "\n",
        "of too many lines": note + "".join(f"— other{at}.example AAAAAAAA\n" for at in range(32)),
        "too long": f"{note}— other.example {'A' * 65_536}\n",
    }


def values() -> dict[str, Any]:
    return {
        "zero": 0, "minus one": -1, "the largest": 2**53 - 1, "no text": "", "a text": "x", "no binary": "A", "unicode": "é😀",
        "a list": [], "nested": [[["x"]]], "an object": {}, "deep": {"a": {"b": []}}, "a hash": b64u(bytes(32)),
    }  # fmt: skip


def damages() -> dict[str, Callable[[bytes], bytes]]:
    def last(put: bytes) -> Callable[[bytes], bytes]:
        return lambda line: line[:-1] + b',"x":' + put + b"}"

    def twice(line: bytes) -> bytes:
        first = re.match(rb'\{("[a-z_]+":)', line)
        assert first is not None
        return line[:-1] + b"," + first[1] + b"0}"

    return {
        "nothing": lambda _: b"",
        "no JSON": lambda line: line[:-1],
        "two": lambda line: line + line,
        "a list": lambda line: b"[" + line + b"]",
        "nested without end": lambda _: b"[" * 100_000,
        "closed nests": lambda _: b'{"a":' * 20 + b"1" + b"}" * 20,
        "no UTF-8": lambda line: line[:-1] + b"\xff",
        "a byte order mark": lambda line: b"\xef\xbb\xbf" + line,
        "a key twice": twice,
        "a key more": last(b"1"),
        "a fraction": last(b"1.0"),
        "an exponent": last(b"1e3"),
        "truth": last(b"true"),
        "nothing known": last(b"null"),
        "no number": last(b"NaN"),
        "beyond all integers": last(b"9007199254740993"),
        "a leading zero": last(b"01"),
        "half a pair": last(b'"\\ud800"'),
        "a control character": last(b'"\x01"'),
        "a bad escape": last(b'"\\x"'),
        "a comma at the end": lambda line: line[:-1] + b",}",
        "a line too long": lambda line: line[:-1] + b" " * (8 * 2**20) + b"}",
    }


def stranger() -> VerifierKey:
    return VerifierKey("witness.example/2", SigningKey(new_seed()).public_key, b"\x04")


def unwitnessed(month: Bundle) -> dict[str, Bundle]:
    seen = month.witnessed
    assert seen is not None
    longer = (*seen.proof, bytes(32))
    return {
        "not witnessed": replace(month, witnessed=None),
        "no proof": replace(month, witnessed=replace(seen, proof=())),
        "a longer proof": replace(month, witnessed=replace(seen, proof=longer)),
        "a short hash": replace(month, witnessed=replace(seen, proof=(b"x", *seen.proof[1:]))),
        "not cosigned": replace(month, witnessed=replace(seen, note=month.checkpoint, proof=())),
        "another note": replace(month, witnessed=replace(seen, note="x")),
        "a wrong cosignature": replace(month, witnessed=replace(seen, note=_flipped_last(seen.note))),
    }


def _flipped_last(note: str) -> str:
    cut = note.rindex(" ") + 20
    return note[:cut] + ("A" if note[cut] != "A" else "B") + note[cut + 1 :]


def floods(flood: Bundle) -> dict[str, Bundle]:
    members = [parse_member(record) for record in flood.records.values() if is_member(record)]
    others = [record for record in flood.records.values() if not is_member(record)]

    def shown(*some: Any) -> Bundle:
        return replace(flood, records=records_by_hash([*others, *map(dump_member, some)]))

    first, *rest = members
    assert first.personal is not None
    return {
        "flood": flood,
        "no member": shown(),
        "a member less": shown(*rest),
        "a member closed": shown(replace(first, personal=None), *rest),
        "a member moved": shown(replace(first, position=99), *rest),
        "a member twice": shown(first, replace(first, position=-1), *rest),
        "a member of another leaf": shown(replace(first, group=0), *rest),
        "a member exchanged": shown(replace(first, entry=flip(first.entry)), *rest),
        "a member opened otherwise": shown(replace(first, personal=Opening(first.personal.salt, b"{}")), *rest),
        "a member's public half": shown(replace(first, public=first.personal), *rest),
        "a member of no format": replace(
            flood, records=records_by_hash([dump_member(first).replace(b"member/1", b"member/2"), *others, *map(dump_member, rest)])
        ),
    }  # fmt: skip


def erasures(erased: Bundle) -> dict[str, Bundle]:
    first, *rest = [parse_tombstone(record) for record in erased.records.values() if is_tombstone(record)]
    another = next(stone for stone in rest if stone.subject != first.subject)
    others = [record for record in erased.records.values() if not is_tombstone(record)]

    def shown(*some: Any) -> Bundle:
        return replace(erased, records=records_by_hash([*others, *map(dump_tombstone, some)]))

    return {
        "erased": erased,
        "no stone": shown(),
        "a stone less": shown(*rest),
        "a stone salted otherwise": shown(replace(first, salt=bytes(32)), *rest),
        "a stone of another group": shown(replace(first, group=0), *rest),
        "a stone moved": shown(replace(first, position=first.position + 1), *rest),
        "a stone of another size": shown(replace(first, size=first.size + 1), *rest),
        "a stone of another leaf": shown(replace(first, leaf=0), *rest),
        "a stone without a path": shown(replace(first, path=()), *rest),
        "a stone of nobody": shown(replace(first, subject=b"", subject_salt=b""), *rest),
        "a stone of another's": shown(replace(first, subject=another.subject), *rest),
        "a stone of a short subject": shown(replace(first, subject=first.subject[:8]), *rest),
        "a stone that opens otherwise": shown(replace(first, subject_salt=bytes(64)), *rest),
        "a stone of a short salt": shown(replace(first, subject_salt=bytes(32)), *rest),
        "ordered by nobody": replace(
            erased, records={name: data for name, data in erased.records.items() if not is_subject_erasure(data)}
        ),
        "ordered by a forger": replace(
            erased,
            records=records_by_hash(
                [flip(data) if is_subject_erasure(data) else data for data in erased.records.values()]
            ),
        ),
        "ordered for all, subjects withheld": replace(erased, withheld=erased.withheld | {Withheld.EVENT}),
    }
