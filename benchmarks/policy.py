"""The decision: what failing closed costs over bare Cedar, and that it stays flat however many consents there are.

`p50_us` is one `evaluate` of the shipped rules: every entity of the request checked against the schema, then
the decision. `bare_cedar_p50_us` is the engine called directly on the same request, with policy set and schema
parsed before; a consent changes, so its entities are parsed for each request there too. Had they been parsed
before as well, it would take `bare_cedar_entities_parsed_p50_us`.

`p50_us_by_consents` is the whole step from a consent id: read the consent by its index from a table of that
many, build the record, decide, make the permit. `casbin_p50_us` runs the plain-Python rules as matcher
functions of pycasbin, `python_p50_us` runs them alone; neither checks a request against a schema.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import casbin
import cedarpy
from sqlmodel import Session, SQLModel

from tests.consent_kit import World
from tests.policies.oracle import decide
from tests.policy_kit import ask
from vault.consent import consents
from vault.db import Database, migrate
from vault.policy.permits import Permit, decide_ask
from vault.policy.records import Ask, ask_record
from vault.proof.decision import evaluate, load_shipped_policy_set
from vault.proof.decision_record import DecisionRecord, dump_entity
from vault.schema.consent import dump_consent
from vault.schema.terms import ConsentKind
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import ConsentId, new_id, sha256
from vault.seal.signing import SigningKey, new_seed
from vault.store.shortkeys import create_table

RULES = load_shipped_policy_set()
RULES_TEXT = "\n".join(json.loads(RULES.source)["policies"].values())
SIZES = (10, 1000, 100_000)
_WARM_UP = 50
_CHUNK = 5000
_CASBIN_MODEL = """
[request_definition]
r = record
[policy_definition]
p = rule
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = decided(r.record) == p.rule
"""


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Open a migrated database with one owner and one company."""
    database = Database(f"sqlite:///{folder / 'vault.sqlite'}")
    short_keys = Database(f"sqlite:///{folder / 'shortkeys.sqlite'}")
    migrate(database)
    create_table(short_keys)
    yield World(database, short_keys)
    database.close()
    short_keys.close()


def add_consents(database: Database, facts: Ask, count: int) -> list[ConsentId]:
    """Give this many people a consent like the one in the facts, each with a key, ids and an end of its own."""
    tables, first, signer = SQLModel.metadata.tables, facts.consent.current, SigningKey(new_seed())
    row = {"kind": "company", "grantee": first.terms.grantee, "version": 1, "event": "given", "live": True}
    row |= {"not_before": first.terms.not_before, "quota_per_month": 5, "quota_month": "", "quota_used": 0}
    row |= {"consent_seq": 1, "last_event": b""}
    made: list[ConsentId] = []
    while len(made) < count:
        rows: list[dict[str, Any]] = []
        versions: list[dict[str, Any]] = []
        for number in range(len(made), min(count, len(made) + _CHUNK)):
            terms = replace(first.terms, not_after=first.terms.not_after + number)
            given = replace(first, consent_id=new_id(), principal_key=secrets.token_bytes(32), terms=terms)
            envelope = sign_record(PayloadType.CONSENT, dump_consent(given), signer).encoded
            ids = {"consent_id": given.consent_id, "vault_id": new_id(), "subject": given.subject}
            rows.append(row | ids | {"not_after": terms.not_after})
            versions.append(
                {"consent_id": given.consent_id, "version": 1, "sha256": sha256(envelope), "leaf_id": number, "envelope": envelope}
            )  # fmt: skip
        with database.transaction() as session:
            session.connection().execute(tables["consent"].insert(), rows)
            session.connection().execute(tables["consent_version"].insert(), versions)
        made += [ConsentId(given["consent_id"]) for given in versions]
    return made


def find_and_decide(session: Session, facts: Ask, consent_id: ConsentId) -> Permit:
    """Take one decision the way an answer does, from the id that a company names to the permit."""
    found = consents.find(session, consent_id)
    if found is None:
        raise LookupError
    return decide_ask(replace(facts, consent=found, person=replace(facts.person, vault_id=found.vault_id)), RULES)


def by_consents(folder: Path, facts: Ask, samples: int) -> dict[str, float]:
    """Measure the whole step over tables of each size, drawing consents at random, all sizes interleaved."""
    with ExitStack() as stack:
        steps: dict[str, Callable[[], object]] = {}
        for size in SIZES:
            database = Database(f"sqlite:///{folder / f'{size}.sqlite'}")
            stack.callback(database.close)
            migrate(database)
            ids = add_consents(database, facts, size)
            print(f"{size} consents made", file=sys.stderr, flush=True)
            session = stack.enter_context(database.snapshot())
            chosen = random.choices(ids, k=_WARM_UP + samples)
            steps[str(size)] = partial(next, map(partial(find_and_decide, session, facts), chosen))
        return median_us(steps, samples)


def contenders(records: list[DecisionRecord], facts: Ask) -> dict[str, Callable[[], object]]:
    """Return everything that is compared, each deciding about the next record in turn."""
    turns = {name: itertools.cycle(records) for name in ("ours", "bare", "parsed", "casbin", "python")}
    policies, schema = cedarpy.PolicySet.from_str(RULES_TEXT), cedarpy.Schema.from_str(RULES.schema)
    entities = {id(one): [dump_entity(entity) for entity in one.entities] for one in records}
    handles = {key: cedarpy.Entities.from_json_str(json.dumps(one), schema) for key, one in entities.items()}
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=_CASBIN_MODEL))
    enforcer.add_policy("allowed")
    enforcer.add_function("decided", lambda record: "allowed" if decide(record)[0] else "denied")

    def bare(one: DecisionRecord, known: Mapping[int, Any]) -> bool:
        request = {
            "principal": {"type": one.principal.type, "id": one.principal.id},
            "action": {"type": "Vault::Action", "id": one.action.value},
            "resource": {"type": one.resource.type, "id": one.resource.id},
            "context": one.context,
        }
        return cedarpy.is_authorized(request, policies, known[id(one)], schema).allowed

    return {
        "ours": lambda: evaluate(next(turns["ours"]), RULES).allowed,
        "bare": lambda: bare(next(turns["bare"]), entities),
        "parsed": lambda: bare(next(turns["parsed"]), handles),
        "casbin": lambda: enforcer.enforce(next(turns["casbin"])),
        "python": lambda: decide(next(turns["python"]))[0],
        "decide_ask": lambda: decide_ask(facts, RULES),
    }


def median_us(actions: Mapping[str, Callable[[], object]], samples: int) -> dict[str, float]:
    """Return the median microseconds of each action, all of them interleaved."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(_WARM_UP + samples):
        for name, action in actions.items():
            started_s = time.perf_counter()
            outcome = action()
            elapsed_s = time.perf_counter() - started_s
            if not outcome:
                raise RuntimeError(f"{name} denies what the rules allow")
            if turn >= _WARM_UP:
                taken[name].append(elapsed_s)
    return {name: round(1e6 * statistics.median(found), 1) for name, found in taken.items()}


def measure(*, quick: bool) -> dict[str, Any]:
    """Run every part and return the figures."""
    samples = 600 if quick else 5000
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as made:
        facts = ask(made, made.give(ConsentKind.COMPANY))
        flat = by_consents(Path(folder), facts, samples)
        records = [
            ask_record(replace(facts, now=facts.now + timedelta(seconds=second)), facts.addition(), RULES.sha256)
            for second in range(200)
        ]
        medians = median_us(contenders(records, facts), samples)
    return {
        "p50_us": medians["ours"],
        "bare_cedar_p50_us": medians["bare"],
        "ratio": round(medians["ours"] / medians["bare"], 3),
        "p50_us_by_consents": flat,
        "casbin_p50_us": medians["casbin"],
        "python_p50_us": medians["python"],
        "bare_cedar_entities_parsed_p50_us": medians["parsed"],
        "decide_ask_p50_us": medians["decide_ask"],
        "rules": len(RULES.rules),
    }


def main() -> None:
    """Print the figures as a table, or with --json as one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    figures = measure(quick=options.quick)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for key, value in figures.items():
        print(f"{key:36} {value}")


if __name__ == "__main__":
    main()
