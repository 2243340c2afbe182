"""A search for a crash: any field of any event, record or line set to nonsense ends in a report, or in one error family.

`TWINVAULT_CASES` sets how many mutants of each bundle are tried; which ones is the same in every run. The whole space
(about 25,000) takes half an hour.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.audit_kit import Audited, training_row
from tests.evidence.test_floods import flooded
from tests.evidence.test_tombstones import erase_all
from tests.evidence.test_trainings import MODEL
from tests.proof.forge import Forge
from tests.verifying import verify_both
from vault.encoding import b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.bundle import Bundle, dump_bundle, parse_bundle
from vault.proof.errors import MalformedProof
from vault.seal.dsse import PayloadType, parse_envelope, sign_record
from vault.seal.errors import SealError
from vault.seal.ids import sha256

CASES: Final = int(os.environ.get("TWINVAULT_CASES", "150"))
NONSENSE: Final[list[Any]] = [
    0, -1, 2**53 - 1, "", "x", "é😀", "A" * 22, "A" * 43, [], [[]], [[["x"]]], {}, {"a": {"b": []}}, [0], ["x"], "2026-13",
    "-1", 10**15, 253_402_300_800, "\0", "a\nb", None,
]  # fmt: skip
"""What a field is set to; None takes it out."""

Path = tuple[str | int, ...]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for name, held in inside:
        yield (*at, name)
        yield from paths(held, (*at, name))


def mutant(value: Any, at: Path, nonsense: Any) -> Any:
    changed = json.loads(json.dumps(value))
    *above, last = at
    inside = changed
    for name in above:
        inside = inside[name]
    if nonsense is None:
        del inside[last]
    else:
        inside[last] = nonsense
    return changed


def loose(value: Any) -> bytes:
    """Return JSON as nobody honest would sign it, but somebody might send it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fields(forge: Forge) -> Iterator[tuple[str, int | str, Path]]:
    """Yield every field of every event and record."""
    for index, event in enumerate(forge.events):
        for half in ("public", "personal"):
            yield from ((half, index, at) for at in paths(getattr(event, half)))
    for name, record in forge.records.items():
        yield from (("record", name, at) for at in paths(content(record)))


def content(record: bytes) -> Any:
    """Return what a record holds: JSON, or a signed payload; nothing where it is a company's JWS."""
    try:
        return parse_json(record)
    except MalformedInput:
        pass
    try:
        return parse_json(parse_envelope(record).payload)
    except SealError:
        return {}


def change(forge: Forge, how: str, what: int | str, at: Path, nonsense: Any) -> None:
    """Set a field; the worker signs its manifests anew, leaves name the changed record, all else keeps its signature."""
    if isinstance(what, int):
        event = forge.events[what]
        setattr(event, how, mutant(getattr(event, how), at, nonsense))
        return
    before = forge.records.pop(what)
    changed = mutant(content(before), at, nonsense)
    try:
        envelope = parse_envelope(before)
    except SealError:
        after = loose(changed)
    else:
        after = replace(envelope, payload=loose(changed)).encoded
        if envelope.payload_type is PayloadType.MANIFEST:
            after = sign_record(PayloadType.MANIFEST, changed, forge.service.worker_key).encoded
    forge.records[b64u(sha256(after))] = after
    for event in forge.events:
        for half in (event.public, event.personal):
            half.update({name: b64u(sha256(after)) for name, value in half.items() if value == what})


@pytest.mark.slow
def test_no_nonsense_in_a_field_crashes_the_verifier(quick: Audited) -> None:
    quick.live()
    answer = parse_bundle(quick.service.ask(quick.service.consent()).content)
    flood = flooded(quick)[1]
    quick.publish_trained(MODEL)  # whose bytes are another's, so that nothing answers from here on
    quick.log_training(MODEL, training_row(MODEL))
    erase_all(quick)
    chance = random.Random(20261127)
    trust = quick.service.trust
    tried: set[tuple[Any, str]] = set()
    for bundle, whole in ((answer, False), (flood, True), (quick.bundle(), True)):
        every = list(fields(Forge.of(quick.service, bundle)))
        for _ in range(CASES):
            forge = Forge.of(quick.service, bundle)
            field, nonsense = chance.choice(every), chance.choice(NONSENSE)
            tried.add((field, str(nonsense)))
            try:
                change(forge, *field, nonsense)
                made = replace(forge.bundle(whole=whole), withheld=bundle.withheld)
            except (MalformedInput, SealError):  # what cannot be committed to, or signed
                continue
            report = verify_both(parse_bundle(dump_bundle(made)), trust)
            assert all(failure.detail for failure in report.failures), (field, nonsense)
        _damage_lines(bundle, chance)
    assert len(tried) > 2 * CASES


def _damage_lines(bundle: Bundle, chance: random.Random) -> None:
    """Set fields of lines, and bits: each ends in another bundle, or in the one error family."""
    data = dump_bundle(bundle)
    lines = data.splitlines()
    for _ in range(CASES):
        at = chance.randrange(len(lines))
        line = json.loads(lines[at])
        changed = loose(mutant(line, chance.choice(list(paths(line))), chance.choice(NONSENSE)))
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        for damaged in (
            b"\n".join([*lines[:at], changed, *lines[at + 1 :], b""]),
            bytes(flipped),
            data[: chance.randrange(len(data))],
        ):
            try:
                parse_bundle(damaged)
            except MalformedProof:
                continue
