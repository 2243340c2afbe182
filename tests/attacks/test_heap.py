"""Invariant 2 in the running app's memory: while it serves, no seed, owner's secret, worker's key or trace is in it.

The scan reads every private page of a child that the test started. It must first find what is known to
be there: a value planted in the child's environment, the app's own signing key, and the imprint key that
an answer was just read with. What it then does not find, it would have found.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client_kit import purchases
from tests.http_kit import QUESTION
from tests.process_kit import app_process
from twinvault.api import ApiError
from twinvault.device import Device
from twinvault.owner import Owner
from vault.keys.kms import LocalKeyring
from vault.keys.operator import WORKER
from vault.seal.derive import imprint_key
from vault.seal.handover import KeyKind
from vault.seal.statement import KeyName

pytestmark = pytest.mark.slow

_CHUNK_BYTES = 16 << 20
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)\s*(.*)")


def private_memory(pid: int) -> Iterator[bytes]:
    """Yield the content of every readable mapping that is not an unchanged file, in overlapping chunks."""
    overlap = 256
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = _MAPPING.match(line)
            assert found is not None, line
            start, end = (int(found[n], 16) for n in (1, 2))
            changeable = "w" in found[3] or found[4] == "0"
            if "r" not in found[3] or not changeable or found[5] in {"[vvar]", "[vsyscall]", "[vvar_vclock]"}:
                continue
            for at in range(start, end, _CHUNK_BYTES):
                try:
                    yield os.pread(memory.fileno(), min(_CHUNK_BYTES + overlap, end - at), at)
                except OSError:  # unmapped since the list was read, or never backed
                    continue


def encodings(value: bytes) -> set[bytes]:
    return {value, value.hex().encode(), urlsafe_b64encode(value).rstrip(b"=")}


def found_in(pid: int, secret: Mapping[str, bytes]) -> set[str]:
    """Return the names of those values that are anywhere in a process's private memory, in any usual encoding."""
    needles = {name: encodings(value) for name, value in secret.items()}
    seen: set[str] = set()
    for chunk in private_memory(pid):
        seen |= {name for name, forms in needles.items() if name not in seen and any(form in chunk for form in forms)}
    return seen


def secrets_of(owner: Owner, texts: Iterable[str]) -> dict[str, bytes]:
    """Return what only the owner, or only the worker, may hold."""
    own = owner._rings.read()
    seeds = owner._rings.keys(own, own.ring.compartments, KeyKind.RAW)
    assert len(seeds) >= 12
    found = {f"seed of {own.ring.compartments[name].period}": seed for name, seed in seeds.items()}
    found |= {"root": owner._keys.root, "pairwise": owner._keys.pairwise_seed}
    found["signing"] = owner._keys.signer._key.private_bytes_raw()
    found["device"] = owner.profile.binary("device_seed", 32)
    return found | {f"text {n}": text.encode() for n, text in enumerate(texts)}


def keys_of_worker(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.key")}
    name = WORKER[KeyName.PROCESSOR]
    wrapped = (folder / f"{name.replace('/', '.')}.wrapped").read_bytes()
    return found | {"processor seed": LocalKeyring(folder).unwrap(name, wrapped, b"x-wing-seed")}


def test_while_it_serves_the_apps_memory_holds_no_key_to_a_trace_and_no_trace(tmp_path: Path) -> None:
    planted = secrets.token_bytes(32)
    with app_process(tmp_path, environment={"TWINVAULT_PLANTED": planted.hex()}) as (running, house):
        assert running.child is not None
        owner, shop = house.owner(), house.company()
        texts = [f"Kanarienvogel {secrets.token_hex(12)}" for _ in range(5)]
        traces = [replace(trace, text=text) for trace, text in zip(purchases(5, month=1), texts, strict=True)]
        owner.import_traces(traces)
        owner.refresh()
        house.work()
        consent, stop = house.consent(owner, shop, quota_per_month=100_000), threading.Event()

        def serve() -> None:
            with closing(Device(owner.profile, house.api())) as device:
                while not stop.is_set():
                    with suppress(ApiError):  # refused once too much was asked about one person: that is served too
                        shop.ask(consent, QUESTION)
                    device.add([replace(traces[0], id=secrets.token_hex(8))])
                    device.flush()

        own = owner._rings.read()
        (january,) = [one for one in own.ring.compartments.values() if one.period == "2026-01"]
        seed = owner._rings.keys(own, {january.id: january}, KeyKind.RAW)[january.id]
        app_keys = house.service.site.folder / "keys/app"
        known = {
            "planted": planted,
            "service key": (app_keys / "service.1.key").read_bytes(),
            "imprint key": imprint_key(seed),
        }
        shop.ask(consent, QUESTION)
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            hidden = secrets_of(owner, texts) | keys_of_worker(house.service.site.folder / "keys/worker")
            assert len(hidden) >= 12 + 4 + 5 + 3
            assert found_in(running.child.pid, known | hidden) == known.keys()
        finally:
            stop.set()
            serving.join(60)
        assert found_in(running.child.pid, known | hidden) == known.keys()
        assert not serving.is_alive()


def test_the_same_scan_finds_a_seed_that_the_process_was_given(tmp_path: Path) -> None:
    """A scan that would not notice shows nothing."""
    seed = secrets.token_bytes(32)
    with app_process(tmp_path, environment={"TWINVAULT_PLANTED": seed.hex()}) as (running, _):
        assert running.child is not None
        assert found_in(running.child.pid, {"seed": seed, "another": secrets.token_bytes(32)}) == {"seed"}
