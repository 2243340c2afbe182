"""Versions that follow one another: policy sets, and the records of each company."""

from __future__ import annotations

from itertools import pairwise

from vault.encoding import JsonObject, b64u, parse_b64u
from vault.proof.decision import parse_policy_set
from vault.proof.errors import InvalidProof
from vault.proof.established import Event, Evidence
from vault.proof.leaf import LeafKind
from vault.proof.question import parse_company
from vault.proof.report import Step


def verify_versions(evidence: Evidence) -> None:
    """Run the step records for policy sets and companies: each leaf says what its record says, none is left out."""
    rules = evidence.events[LeafKind.POLICY_SET]
    for event in rules:
        evidence.attempt(Step.RECORDS, event.index, _verify_rules, event)
    for before, event in pairwise(rules) if evidence.whole else ():
        evidence.attempt(Step.RECORDS, event.index, _verify_successor, before, event)
    newest: dict[str, int] = {}
    for event in evidence.events[LeafKind.COMPANY]:
        evidence.attempt(Step.RECORDS, event.index, _verify_company, event)
        if evidence.whole:
            evidence.attempt(Step.RECORDS, event.index, _verify_next, event, newest)


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


def _verify_company(evidence: Evidence, event: Event) -> None:
    record = evidence.bundle.records.get(parse_b64u(event.public.get("record_sha256"), size=32))
    if record is None:  # a company's older records are not kept
        return
    said = parse_company(record.decode("ascii", "replace"), str(event.public.get("company")))
    if event.public.get("version") != said.version:
        raise InvalidProof("The leaf says another version of the company's record than that states itself.")


def _verify_next(evidence: Evidence, event: Event, newest: dict[str, int]) -> None:
    company, version = str(event.public.get("company")), event.public.get("version")
    carried = evidence.carried.companies.get(company) if event.index in evidence.whole else None
    before = newest.get(company, carried)
    # Of companies that asked in a range all records are shown, of others those in it.
    first = before is None and (event.index not in evidence.whole or evidence.looked_at.start == 0)
    expected = 1 if first else version if before is None else before + 1
    if not isinstance(version, int) or version != expected:
        raise InvalidProof(f"The company's record should have version {expected}: one before it is left out.")
    newest[company] = version
    if event.index in evidence.whole:
        evidence.carried.companies[company] = version
