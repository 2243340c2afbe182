"""Decisions on a real consent: the facts as the one path reads them, and the permits that follow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.consent_kit import NOW, PURPOSE, World
from tests.vault_kit import MONTH, PURCHASE
from vault.consent import consents
from vault.consent.consents import Consent
from vault.consent.exposure import Exposure
from vault.parties import companies, people
from vault.parties.caller import CompanyCaller, OwnerCaller
from vault.policy.permits import Permit, decide_ask, decide_refresh, decide_train
from vault.policy.records import Ask, Use
from vault.proof.certificate import Manifest, Required
from vault.proof.decision import load_shipped_policy_set
from vault.proof.jose import Thumbprint
from vault.schema.consent import ConsentVersion
from vault.schema.question import NextChoice
from vault.seal.ids import ConsentId

RULES = load_shipped_policy_set()
MANIFEST = Manifest(b"m" * 32, b"f" * 32, b"c" * 32, 1_795_000_000, 0, 0, 1_000_000, (), None)
UNMET = Exposure(0, 0, "", b"k" * 32)
BUILT_IN = Required(built_in=frozenset({MANIFEST.model_sha256}))
QUESTION = NextChoice(PURCHASE, PURPOSE, 3)


def company_caller(world: World, **changed: Any) -> CompanyCaller:
    with world.database.snapshot() as session:
        company = companies.get(session, world.company.company_id)
    facts = {
        "company_id": company.company_id,
        "status": company.status,
        "version": company.version,
        "record": company.record,
        "agent": company.agent,
        "question_key": company.question_key,
        "jkt": Thumbprint("t" * 43),
        "grant_id": None,
        "sender_constrained": True,
    }
    return CompanyCaller(**facts | changed)


def read(world: World, version: ConsentVersion) -> Consent:
    with world.database.snapshot() as session:
        found = consents.find(session, ConsentId(version.consent_id))
    assert found is not None
    return found


def ask(world: World, version: ConsentVersion, **changed: Any) -> Ask:
    """Return the facts of one question by the company; `changed` replaces any of them."""
    with world.database.snapshot() as session:
        person = people.get(session, world.owner.vault)
    facts: dict[str, Any] = {
        "consent": read(world, version),
        "person": person,
        "caller": company_caller(world),
        "question": QUESTION,
        "reveals": frozenset(),
        "manifest": MANIFEST,
        "exposure": UNMET,
        "now": NOW,
        "required": BUILT_IN,
    }
    return Ask(**facts | changed)


def own_ask(world: World, version: ConsentVersion, **changed: Any) -> Ask:
    return ask(world, version, caller=OwnerCaller(world.owner.vault), **changed)


def use(world: World, version: ConsentVersion, **changed: Any) -> Use:
    with world.database.snapshot() as session:
        person = people.get(session, world.owner.vault)
    facts: dict[str, Any] = {
        "consent": read(world, version),
        "person": person,
        "purpose": PURPOSE,
        "categories": frozenset({PURCHASE}),
        "data_from": MONTH,
        "data_to": MONTH,
        "now": NOW,
    }
    return Use(**facts | changed)


def ask_permit(world: World, version: ConsentVersion, now: datetime = NOW) -> Permit:
    return decide_ask(ask(world, version, now=now), RULES)


def refresh_permit(world: World, version: ConsentVersion, **changed: Any) -> Permit:
    return decide_refresh(use(world, version, **changed), RULES)


def train_permit(world: World, version: ConsentVersion, **changed: Any) -> Permit:
    return decide_train(use(world, version, **changed), RULES)
