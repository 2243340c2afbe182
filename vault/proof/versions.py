"""Versions that follow one another: policy sets, and the records of each company."""

from __future__ import annotations

from itertools import pairwise

from vault.encoding import JsonObject, b64u
from vault.proof.decision import parse_policy_set
from vault.proof.errors import InvalidProof
from vault.proof.established import Evidence
from vault.proof.event import Event
from vault.proof.leaf import LeafKind
from vault.proof.question import Registered, parse_company, verify_follows
from vault.proof.report import Step


def verify_versions(evidence: Evidence) -> None:
    """Run the step records for policy sets and companies: each leaf says what its record says, none is left out."""
    rules = evidence.events[LeafKind.POLICY_SET]
    for event in rules:
        evidence.attempt(Step.RECORDS, event.index, _verify_rules, event)
    for before, event in pairwise(rules) if evidence.whole else ():
        evidence.attempt(Step.RECORDS, event.index, _verify_successor, before, event)
    newest: dict[str, Registered] = {}
    for event in evidence.events[LeafKind.COMPANY]:
        evidence.attempt(Step.RECORDS, event.index, _verify_company, event, newest)
    for company, said in newest.items():
        evidence.attempt(Step.RECORDS, None, _verify_newest, company, said)


def _verify_rules(evidence: Evidence, event: Event) -> None:
    policy_set = parse_policy_set(evidence.record(event, event.public, "policy_set"))
    said: JsonObject = {"version": policy_set.version, "predecessor": b64u(policy_set.predecessor)}
    if not said.items() <= event.public.items():
        raise InvalidProof("The leaf says another version or predecessor of its rules than they state themselves.")


def _verify_successor(_: Evidence, before: Event, event: Event) -> None:
    version, last = event.public.get("version"), before.public.get("version")
    follows = isinstance(version, int) and isinstance(last, int) and version == last + 1
    if not follows or event.public.get("predecessor") != before.public.get("policy_set"):
        raise InvalidProof("The rules do not follow those that were in force before: a version is left out.")


def _verify_company(evidence: Evidence, event: Event, newest: dict[str, Registered]) -> None:
    company, record = str(event.public.get("company")), evidence.company_record(event)
    said, before = parse_company(record, company), newest.get(company)
    if event.public.get("version") != said.version:
        raise InvalidProof("The leaf says another version of the company's record than that states itself.")
    expected = 1 if before is None else before.version + 1
    if said.version != expected:
        raise InvalidProof(f"The company's record should have version {expected}: one before it is left out.")
    if before is not None:
        verify_follows(record, before)
    newest[company] = said


def _verify_newest(evidence: Evidence, company: str, said: Registered) -> None:
    known = evidence.carried.companies
    if said.version < known.get(company, 0):
        raise InvalidProof(f"The company {company} had a later record in a part before this one.")
    known[company] = said.version
