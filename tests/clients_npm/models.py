"""Models, trainings and releases that a service publishes, honestly and not, for two verifiers to be held against."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from tests.audit_kit import training_row
from tests.proof.forge import Forge, Told
from tests.proof.test_certificate import CERTIFICATE, CHARGES
from tests.proof.test_certificate import _manifest as manifest_of
from vault.clock import unix_s
from vault.encoding import JsonValue, b64u
from vault.proof.accounting import OWNER_DAY_CAP, gaussian, person_curve
from vault.proof.certificate import Certificate, Group, Manifest, dump_manifest
from vault.proof.charge import Charge, People, dump_charge, epsilon_of
from vault.proof.leaf import LeafKind
from vault.schema.answer import answer_bytes, parse_answer
from vault.seal.dsse import PayloadType, sign_record

Lie = Callable[[Forge], None]

PLAIN = (CHARGES[0], CHARGES[2])
"""Charges whose cost takes no sum to compute."""

CHEAPER = replace(CHARGES[1], steps=20)


def certificates() -> Iterator[tuple[str, Lie]]:
    """Yield answers by models that were certified otherwise, at and beyond each threshold."""
    yield "certified", lambda forge: certified(forge, _trained(forge))
    edges = (-110_000, -30_001, 0, 19, 4_000, 60_000, 949_999, 950_000, 1_000_000, 1_001_000, 1_050_001, 10**12 + 1)
    for field in fields(Certificate):
        for value in edges if field.name != "groups" else ():
            changed = replace(CERTIFICATE, **{field.name: value})
            yield f"certified with {field.name} {value}", _certified_as(certificate=changed, **_plain())
    for field in fields(Group):
        for value in (-140_000, -60_001, 0, 19, 20, 130_001) if field.name != "activity" else ():
            worse = replace(CERTIFICATE.groups[0], **{field.name: value})
            yield (
                f"certified of a group with {field.name} {value}",
                _certified_as(certificate=replace(CERTIFICATE, groups=(worse,)), **_plain()),
            )
    twice = replace(CERTIFICATE, groups=CERTIFICATE.groups[:1] * 2)
    for name, changes in {
        "without a certificate": {"certificate": None},
        "of a group twice": {"certificate": twice},
        "of a small cohort": {"cohort": 99},
        "of a cohort too large for its delta": {"cohort": 100_010},
        "of another epsilon": {"epsilon_ppm": 1_000_000},
        "with nobody held out": {"charges": PLAIN[:1]},
        "of a map with words": {
            "map_sha256": bytes.fromhex("1a27839f7c8e3ebcccd9880722adc375325cd0d2475ccb32e6d1fa7e14b99562")
        },
    }.items():
        yield f"a model {name}", _certified_as(**_plain() | changes)
    dear = (replace(CHARGES[1], steps=4_000), CHARGES[2])
    yield "a model that cost too much", _certified_as(charges=dear, epsilon_ppm=_epsilon_ppm(dear))
    for off in (-3, -2, 2, 3):
        yield f"an epsilon off by {off}", _certified_as(epsilon_ppm=_epsilon_ppm(CHARGES) + off)
    for age_s in (-301, -300, 400 * 86_400, 400 * 86_400 + 1):
        yield f"a model {age_s} seconds old", _certified_as(age_s=age_s, **_plain())


def ledgers() -> Iterator[tuple[str, Lie]]:
    """Yield trainings that were charged honestly, or another sum, twice, or for another model."""
    model = manifest_of()
    row = training_row(model)
    yield "charged and published", _charged(model, row)
    yield "published and never charged", lambda forge: published(forge, model)
    yield "charged and not published", lambda forge: forge.events.append(_training(model, row))
    yield "charged, and what is not shown", _shut(model, row)
    yield "charged twice", _each(_charged(model, row), _charged(model, row))
    rows: dict[str, JsonValue] = {
        "release": "A" * 42, "unit": "owner-day", "subject": "x", "orders": "grid/0", "window": "26", "code": b64u(bytes(32)),
        "renyi_nano": [1], "mechanism": {"name": "backbone/1", "map": b64u(b"f" * 32), "charges": []},
    }  # fmt: skip
    for name, value in rows.items():
        yield f"charged with another {name}", _charged(model, row | {name: value})
        yield f"charged without {name}", _charged(model, {key: row[key] for key in row if key != name})
    for off in (-3, 2):
        nano = [bound + off for bound in person_curve(CHARGES).nano]
        yield f"charged {off} billionths more", _charged(model, row | {"renyi_nano": nano})
    cheap = (CHARGES[0], CHEAPER, CHARGES[2])
    mechanism = {"name": "backbone/1", "map": b64u(model.map_sha256), "charges": [dump_charge(one) for one in cheap]}
    yield (
        "charged as a cheaper one",
        _charged(model, training_row(model, mechanism=mechanism, renyi_nano=[*person_curve(cheap).nano])),
    )
    for name, said in {
        "cohort": 7,
        "epsilon_ppm": 1,
        "outcome": "certificate-invalid",
        "model": "",
        "map": "x",
    }.items():
        yield f"a training that says {name} {said}", _charged(model, row, **{name: said})
    lying = manifest_of(epsilon_ppm=1_000_000)
    yield "an epsilon that is not its charges'", _charged(lying, training_row(lying))
    second = manifest_of(cohort=410)
    yield "more than a year's cap", _each(*(_charged(one, training_row(one)) for one in (model, second)))
    rng = random.Random(20261127)
    for at in range(10):
        drawn = manifest_of(tuple(_charge(rng, people) for people in (*People, *People)), cohort=100 + at)
        yield f"drawn charges {at}", _charged(drawn, training_row(drawn))


def releases() -> Iterator[tuple[str, Lie]]:
    """Yield imprint releases around what a day's cap admits, and charged other sums."""
    for sensitivity in (1, 256, 1_000_003):
        dearest = _least_sigma(sensitivity)
        for sigma in (1, 2, 3, dearest - 1, dearest, dearest + 1, 2**52):
            due = -(-(10**6) * sensitivity**2 // sigma**2)
            for mu2_micro in (due, due - 1, due + 1) if due < 2**53 - 1 else ():
                yield f"release {sensitivity} {sigma} {mu2_micro}", _released(sensitivity, sigma, mu2_micro)
    for value in ("", -1, [], {}):
        yield f"release of {value!r}", _released(value, 1, 1)


def certified(forge: Forge, manifest: Manifest) -> None:
    """Let the answer be by another model, which the worker signed and the log has."""
    event, logged = forge.event(LeafKind.ANSWER), forge.event(LeafKind.MANIFEST)
    answer = parse_answer(forge.records.pop(event.personal["record"]))
    del forge.records[event.public["manifest"]]
    forge.swap(event.public, "manifest", _signed(forge, manifest))
    event.public["model"] = logged.public["model"] = b64u(manifest.digest)
    logged.public["record"], event.public["words"] = event.public["manifest"], ""
    forge.swap(event.personal, "record", answer_bytes(replace(answer, model_sha256=manifest.digest)))


def published(forge: Forge, manifest: Manifest) -> None:
    event = Told(LeafKind.MANIFEST, {"model": b64u(manifest.digest)}, {}, opened=False)
    forge.swap(event.public, "record", _signed(forge, manifest))
    forge.events.append(event)


def _signed(forge: Forge, manifest: Manifest) -> bytes:
    return sign_record(PayloadType.MANIFEST, json.loads(dump_manifest(manifest)), forge.service.worker_key).encoded


def _trained(forge: Forge, age_s: int = 60, **changes: Any) -> Manifest:
    return manifest_of(**{"trained_at": unix_s(forge.service.clock.at) - age_s, **changes})


def _certified_as(**changes: Any) -> Lie:
    return lambda forge: certified(forge, _trained(forge, **changes))


def _plain() -> dict[str, Any]:
    return {"charges": PLAIN, "epsilon_ppm": _epsilon_ppm(PLAIN)}


def _epsilon_ppm(charges: tuple[Charge, ...]) -> int:
    return round(epsilon_of(charges, 1e-6) * 1e6)


def _training(manifest: Manifest, row: dict[str, JsonValue], **changed: Any) -> Told:
    public = {
        "map": b64u(manifest.map_sha256), "code": b64u(manifest.code_sha256), "cohort": manifest.cohort,
        "epsilon_ppm": manifest.epsilon_ppm, "delta_inverse": manifest.delta_inverse, "release_id": row.get("release", ""),
        "model": b64u(manifest.digest), "outcome": "released",
    }  # fmt: skip
    return Told(LeafKind.TRAINING, public | changed, {"charge": row}, opened=True)


def _charged(manifest: Manifest, row: dict[str, JsonValue], **changed: Any) -> Lie:
    def change(forge: Forge) -> None:
        published(forge, manifest)
        forge.events.append(_training(manifest, row, **changed))

    return change


def _each(*changes: Lie) -> Lie:
    def change(forge: Forge) -> None:
        for one in changes:
            one(forge)

    return change


def _shut(manifest: Manifest, row: dict[str, JsonValue]) -> Lie:
    def change(forge: Forge) -> None:
        published(forge, manifest)
        forge.events.append(replace(_training(manifest, row), opened=False))

    return change


def _charge(rng: random.Random, people: People) -> Charge:
    rate = rng.choice((1_000_000, rng.randint(1, 999_999), 1_000))
    steps = rng.choice((1, rng.randint(2, 1_000), 1_000_000))
    return Charge("training", people, rng.randint(10_000, 20_000_000), rate, steps)


def _least_sigma(sensitivity: int) -> int:
    low, high = 1, 10**12
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if OWNER_DAY_CAP.admits(gaussian(sensitivity, middle)) else (middle + 1, high)
    return low


def _released(sensitivity: Any, sigma: int, mu2_micro: int) -> Lie:
    public = {"sensitivity": sensitivity, "sigma": sigma, "mu2_micro": mu2_micro}
    return lambda forge: forge.events.append(Told(LeafKind.RELEASE, public, {}, opened=False))
