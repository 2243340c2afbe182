"""The rules once more in plain Python: the independent implementation that Cedar is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vault.proof.decision_record import Action, DecisionRecord, Uid
from vault.schema.category import CATEGORIES

LIVE = {"dpv:ConsentGiven", "dpv:RenewedConsentGiven"}
INFLUENCE = {"dpv:PoliticalCampaign", "x:BehaviouralSteering", "x:InfluenceBehaviour", "x:Persuasion"}
SALE = {"dpv:SellDataToThirdParties", "dpv:SellInsightsFromData"}
SPECIAL = {name for name, term in CATEGORIES.items() if term.special}


def decide(record: DecisionRecord) -> tuple[bool, tuple[str, ...]]:
    """Return the decision and the ids that decided, as Cedar reports them: forbids if any, else permits."""
    entities: dict[Uid, Any] = {entity.uid: entity.attrs for entity in record.entities}
    context: dict[str, Any] = dict(record.context)

    def follow(reference: Any) -> Any:
        return entities[Uid(**reference["__entity"])]

    facts = {
        "consent": follow(context["consent"]),
        "twin": entities[record.resource],
        "person": follow(entities[record.resource]["owner"]),
        "asker": entities[record.principal],
        "model": follow(context["model"]) if "model" in context else None,
    }
    forbids = tuple(
        sorted({*_general(context, **facts), *_forbidden_aims(context, **facts), *_asking(record, context, **facts)})
    )
    if forbids:
        return False, forbids
    permit = _permit(record, context, facts["consent"], facts["twin"])
    return (True, (permit,)) if permit else (False, ())


def _general(context: Any, consent: Any, twin: Any, person: Any, **_: Any) -> Iterator[str]:
    if consent["state"] not in LIVE:
        yield "consent-not-active"
    if not consent["not_before"] <= context["now"] < consent["not_after"]:
        yield "outside-window"
    if not consent["data_from"] <= context["data_from"] <= context["data_to"] <= consent["data_to"]:
        yield "outside-data-window"
    if context["purpose"] not in consent["purposes"]:
        yield "purpose-not-covered"
    if not context["categories"] or not set(context["categories"]) <= set(consent["categories"]):
        yield "category-not-covered"
    for category in SPECIAL.intersection({*context["categories"], *context["reveals"]}):
        if category not in consent["explicit_special"]:
            yield "special" + "".join(f"-{c.lower()}" if c.isupper() else c for c in category.removeprefix("pd:"))
    if "minor-without-guardian" in person["profile"]:
        yield "minor-without-guardian"
    if "deceased" in person["profile"] and context["purpose"] not in consent["post_mortem"]:
        yield "deceased"
    if twin["frozen"] != 0:
        yield "vault-frozen"


def _forbidden_aims(context: Any, consent: Any, person: Any, **_: Any) -> Iterator[str]:
    if context["purpose"] in INFLUENCE and consent["influence_opt_in"] != 1:
        yield "influence-not-allowed"
    if context["purpose"] in INFLUENCE and "minor" in person["profile"]:
        yield "influence-of-minor"
    if context["purpose"] in SALE:
        yield "sale-of-data"


def _asking(record: DecisionRecord, context: Any, consent: Any, asker: Any, model: Any, **_: Any) -> Iterator[str]:
    if record.action in {Action.REFRESH, Action.TRAIN}:
        return
    if context["question"] not in consent["questions"]:
        yield "question-not-covered"
    if context["quota_left"] <= 0:
        yield "quota-spent"
    if context["agent"] != 0 and consent["agent_allowed"] != 1:
        yield "agent-not-allowed"
    if context["agent"] != 0 and context["agent_quota_left"] <= 0:
        yield "agent-quota-spent"
    if record.principal.type == "Vault::Company" and asker["status"] != "active":
        yield "company-suspended"
    if record.principal.type == "Vault::Company" and context["sender_constrained"] != 1:
        yield "bearer-token"
    if record.action is Action.ASK and model["certificate"] != "valid":
        yield "model-without-certificate"
    for met in ("stimuli", "candidates", "variations") if record.action is Action.ASK else ():
        if met in context["exceeds"]:
            yield f"{met}-spent"


def _permit(record: DecisionRecord, context: Any, consent: Any, twin: Any) -> str | None:
    def names(reference: Any, uid: Uid) -> bool:
        return reference is not None and Uid(**reference["__entity"]) == uid

    by_company = consent["kind"] == "company" and names(consent.get("grantee"), record.principal)
    by_owner = consent["kind"] == "self" and names(twin["owner"], record.principal)
    served = context.get("question") in {"next_choice", "recommend", "propensity"}
    asker = record.principal.type.removeprefix("Vault::")
    fits = {
        (Action.REFRESH, "Service"): ("permit-refresh", consent["kind"] == "self"),
        (Action.TRAIN, "Service"): ("permit-train", consent["kind"] == "cohort"),
        (Action.ASK, "Person"): ("permit-ask-owner", by_owner and served),
        (Action.ASK, "Company"): ("permit-ask-company", by_company and served),
        (Action.POPULATION_MAP, "Company"): (
            "permit-population-map",
            by_company and context.get("question") == "population_map",
        ),
    }
    permit, holds = fits[record.action, asker]
    return permit if holds and names(consent["twin"], record.resource) else None
