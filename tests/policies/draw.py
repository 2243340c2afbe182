"""Random decision records around every boundary of the rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.policies.cases import base_of
from tests.policies.oracle import INFLUENCE, LIVE, SALE, SPECIAL
from vault.policy.review import record_of
from vault.proof.decision import PolicySet
from vault.proof.decision_record import DecisionRecord


def random_record(rng: random.Random, policy_set: PolicySet) -> DecisionRecord:
    """Draw a record that is one to four changes away from a base record, around every boundary."""
    base: Any = base_of(rng.choice(["ask_company", "ask_owner", "refresh", "train", "population_map"]))
    now = base["context"]["now"]
    purposes = [base["context"]["purpose"], "dpv:Marketing", *sorted(INFLUENCE | SALE)]
    categories = ["pd:Purchase", "pd:Location", *sorted(SPECIAL)]
    questions = ["next_choice", "recommend", "propensity", "forecast", "population_map"]
    window, flag = [now - 1, now, now + 1, now + 9], [0, 0, 1, 2]
    some: dict[str, Callable[[], Any]] = {
        "context.purpose": lambda: rng.choice(purposes),
        "context.categories": lambda: rng.sample(categories, rng.randrange(3)),
        "context.reveals": lambda: rng.sample(categories, rng.randrange(3)),
        "context.data_from": lambda: rng.choice([202512, 202601, 202612]),
        "context.data_to": lambda: rng.choice([202601, 202612, 202701]),
        "context.question": lambda: rng.choice(questions),
        "context.quota_left": lambda: rng.choice([-1, 0, 1]),
        "context.exceeds": lambda: rng.sample(["stimuli", "candidates", "variations"], rng.randrange(4)),
        "context.agent_quota_left": lambda: rng.choice([-1, 0, 1]),
        "context.agent": lambda: rng.choice(flag),
        "context.sender_constrained": lambda: rng.choice(flag),
        "Consent.kind": lambda: rng.choice(["self", "cohort", "company"]),
        "Consent.state": lambda: rng.choice([*sorted(LIVE), "dpv:ConsentWithdrawn", ""]),
        "Consent.purposes": lambda: rng.sample(purposes, rng.randrange(len(purposes) + 1)),
        "Consent.questions": lambda: rng.sample(questions, rng.randrange(len(questions) + 1)),
        "Consent.categories": lambda: rng.sample(categories, rng.randrange(len(categories) + 1)),
        "Consent.explicit_special": lambda: rng.sample(sorted(SPECIAL), rng.randrange(len(SPECIAL) + 1)),
        "Consent.not_before": lambda: rng.choice(window),
        "Consent.not_after": lambda: rng.choice(window),
        "Consent.influence_opt_in": lambda: rng.choice(flag),
        "Consent.agent_allowed": lambda: rng.choice(flag),
        "Consent.post_mortem": lambda: rng.sample(purposes, rng.randrange(len(purposes) + 1)),
        "Person.profile": lambda: rng.sample(["minor", "minor-without-guardian", "deceased"], rng.randrange(4)),
        "Twin.frozen": lambda: rng.choice(flag),
        "Company.status": lambda: rng.choice(["active", "suspended"]),
        "Model.certificate": lambda: rng.choice(["valid", "revoked"]),
    }
    types = {item["uid"]["type"].removeprefix("Vault::") for item in base["entities"]}
    fields = [f for f in some if f.split(".")[1] in base["context"] or f.split(".")[0] in types]
    return record_of(base, {field: some[field]() for field in rng.sample(fields, rng.randint(0, 4))}, policy_set)
