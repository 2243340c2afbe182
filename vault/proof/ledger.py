"""The ledger as an auditor sees it: what was released cost what is said, and stayed under the published caps.

Of imprint releases only the public half is shown: whose they are is nobody's business, so each is held to its cap by
itself, and what a day cost in sum is for its owner to see. Trainings cost everybody, so their charges are shown whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vault.encoding import b64u
from vault.proof.accounting import (
    GRID,
    NOTHING,
    ORDERS,
    OWNER_DAY_CAP,
    PERSON_YEAR_CAP,
    Curve,
    gaussian,
    person_curve,
)
from vault.proof.certificate import SHIPPED, Manifest, parse_manifest, verify_epsilon
from vault.proof.charge import Charge, parse_charge
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.established import Evidence
from vault.proof.event import Event
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.schema.reader import Reader
from vault.seal.dsse import PayloadType, parse_envelope
from vault.seal.statement import KeyName

_NEARBY: Final = 64  # leaves of one transaction lie near each other, unless the range ends between them
_ROUNDING: Final = 2  # billionths by which the logarithms of two machines may differ
_YEAR: Final = re.compile(r"[0-9]{4}")


@dataclass(frozen=True, slots=True)
class _Training:
    """A ledger row of a training.

    Args:
        year: Which person-year pays.
        release: Names the charge; whoever releases twice pays twice.
        map: Digest of the feature map.
        code: Digest of the trainer's source.
        charges: What read people.
        curve: What that is said to cost each of them.
    """

    year: str
    release: str
    map: str
    code: str
    charges: tuple[Charge, ...]
    curve: Curve


def verify_ledger(evidence: Evidence) -> None:
    """Run the step ledger."""
    for kind, check in (
        (LeafKind.MANIFEST, _verify_model),
        (LeafKind.TRAINING, _verify_training),
        (LeafKind.RELEASE, _verify_release),
    ):
        for event in evidence.events[kind]:
            if event.index in evidence.whole:
                evidence.attempt(Step.LEDGER, event.index, check, event)


def _verify_model(evidence: Evidence, event: Event) -> None:
    manifest = _manifest(evidence, event)
    verify_epsilon(manifest)
    if not manifest.charges or manifest.digest in SHIPPED:
        return
    trainings = evidence.events[LeafKind.TRAINING]
    if any(training.index > event.index and _is_about(training, event) for training in trainings):
        return
    if evidence.whole.stop - event.index > _NEARBY:
        raise InvalidProof("The model was learned from people, but no training is logged that charged them.")


def _verify_training(evidence: Evidence, event: Event) -> None:
    if "charge" not in event.personal:
        raise InvalidProof("What a training cost everybody is not shown.")
    row = _parse_training(Reader(event.personal["charge"], MalformedProof, "charge"))
    if (row.release, row.map, row.code) != tuple(event.public.get(name) for name in ("release_id", "map", "code")):
        raise InvalidProof("A training's leaf and its row of the ledger do not say the same.")
    if row.release in evidence.carried.trainings:
        raise InvalidProof("Two trainings are logged under one charge.")
    evidence.carried.trainings.add(row.release)
    cost = person_curve(row.charges)
    if any(abs(said - due) > _ROUNDING for said, due in zip(row.curve.nano, cost.nano, strict=True)):
        raise InvalidProof("A training was charged another sum than its mechanism costs.")
    year = evidence.carried.charged_in_year
    year[row.year] = year.get(row.year, NOTHING) + row.curve
    if event.public.get("outcome") == "released":
        _verify_published(evidence, event, row)
    if not PERSON_YEAR_CAP.admits(year[row.year]):
        raise InvalidProof(f"All trainings of {row.year} together cost each person more than the cap of a year.")


def _verify_published(evidence: Evidence, event: Event, row: _Training) -> None:
    published = [model for model in evidence.events[LeafKind.MANIFEST] if _is_about(event, model)]
    if not published or published[0].index > event.index:
        raise InvalidProof("A training was charged whose model is not the one that was published.")
    manifest = _manifest(evidence, published[0])
    said = {
        "map": b64u(manifest.map_sha256),
        "code": b64u(manifest.code_sha256),
        "cohort": manifest.cohort,
        "epsilon_ppm": manifest.epsilon_ppm,
        "delta_inverse": manifest.delta_inverse,
    }
    if not said.items() <= event.public.items() or manifest.charges != row.charges:
        raise InvalidProof("The published model and the training that was charged for it do not say the same.")


def _verify_release(_: Evidence, event: Event) -> None:
    r = Reader(event.public, MalformedProof, "release")
    sensitivity, sigma, mu2_micro = r.integer("sensitivity", 1), r.integer("sigma", 1), r.integer("mu2_micro", 0)
    if mu2_micro != -(-(10**6) * sensitivity**2 // sigma**2):
        raise InvalidProof("A release was charged another sum than its noise costs.")
    if not OWNER_DAY_CAP.admits(gaussian(sensitivity, sigma)):
        raise InvalidProof("A release alone cost a day more than its cap.")


def _manifest(evidence: Evidence, event: Event) -> Manifest:
    envelope = parse_envelope(evidence.record(event, event.public, "record"))
    manifest = parse_manifest(envelope.payload)
    if b64u(manifest.digest) != event.public.get("model"):
        raise InvalidProof("The leaf of a model names another manifest than its record.")
    evidence.verify_signed(envelope, PayloadType.MANIFEST, KeyName.PROCESSOR_SIGN)
    return manifest


def _is_about(training: Event, model: Event) -> bool:
    return training.public.get("outcome") == "released" and training.public.get("model") == model.public.get("model")


def _parse_training(r: Reader) -> _Training:
    r.exactly("unit", "person")
    r.exactly("subject", "everyone")
    r.exactly("orders", GRID)
    mechanism = r.object("mechanism")
    mechanism.exactly("name", "backbone/1")
    charges = tuple(parse_charge(item) for item in mechanism.objects("charges", at_most=64))
    if not charges:
        raise MalformedProof("A training charged nothing.")
    nano = r.integers("renyi_nano", 0, at_most=len(ORDERS))
    if len(nano) != len(ORDERS):
        raise MalformedProof("A charge has one bound for every order of its grid.")
    return _Training(
        year=r.text("window", _YEAR),
        release=b64u(r.binary("release", 32)),
        map=b64u(mechanism.binary("map", 32)),
        code=b64u(r.binary("code", 32)),
        charges=charges,
        curve=Curve(nano),
    )
