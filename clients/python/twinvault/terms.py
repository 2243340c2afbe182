"""What an owner's own consents say, and reading what a company asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from twinvault.api import Api, ClientError, field
from twinvault.jws import company_id_of
from vault.clock import DAY_S, Clock, SystemClock, unix_s
from vault.proof.jose import COMPANY_TYPE, REQUEST_TYPE, JwsKey, parse_jws, read_jwk
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentRequest, parse_consent_request
from vault.schema.question import QuestionKind
from vault.schema.terms import COHORT_GRANTEE, SELF_GRANTEE, ConsentKind, Handling, Terms
from vault.schema.trace import Period

OWN_PURPOSE: Final = Purpose("dpv:RequestedServiceProvision")
COHORT_PURPOSE: Final = Purpose("dpv:ResearchAndDevelopment")
YEAR_S: Final = 365 * DAY_S
_COMPANY_ID: Final = re.compile("[A-Za-z0-9_-]{22}")
_OWN_QUOTA: Final = 10_000
_ASKABLE: Final = (QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND)


class BadRequest(ClientError):
    """A consent request that no known company signed, or that asks for another company."""

    slug = "bad-consent-request"
    title = "Consent request does not hold"


@dataclass(frozen=True, slots=True)
class AskedBy:
    """A verified consent request.

    Args:
        request: What is asked for.
        jws: Exactly as signed.
        company: The company's name, from its own signed record.
    """

    request: ConsentRequest
    jws: str
    company: str


def own_terms(
    kind: ConsentKind,
    issuer: str,
    categories: Iterable[Category],
    *,
    data_from: Period,
    data_to: Period,
    not_before: int,
    not_after: int,
) -> Terms:
    """Return the terms of a self or cohort consent.

    Args:
        kind: Self or cohort.
        issuer: The service, named as controller.
        categories: About what.
        data_from: First month.
        data_to: Last month; no key beyond it is handed over.
        not_before: Unix seconds.
        not_after: Unix seconds.
    """
    cohort = kind is ConsentKind.COHORT
    handling = Handling(
        controller=f"The operator of {issuer}",
        jurisdiction="EU",
        storage_locations=(issuer,),
        retention_period="P1Y",
        withdrawal_method="twinvault owner withdraw",
        privacy_rights="twinvault owner history",
    )
    return Terms(
        kind=kind,
        grantee=COHORT_GRANTEE if cohort else SELF_GRANTEE,
        purposes=frozenset({COHORT_PURPOSE if cohort else OWN_PURPOSE}),
        questions=frozenset() if cohort else frozenset({QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND}),
        necessary=frozenset(categories),
        optional=frozenset(),
        data_from=data_from,
        data_to=data_to,
        not_before=not_before,
        not_after=not_after,
        quota_per_month=0 if cohort else _OWN_QUOTA,
        explicit_special=frozenset(),
        influence_opt_in=False,
        agent_allowed=False,
        post_mortem=frozenset(),
        handling=handling,
    )


def asked_terms(
    company_id: str, purposes: Iterable[Purpose], necessary: Iterable[Category], *, data_from: Period, data_to: Period,
    handling: Handling, optional: Iterable[Category] = (), questions: Iterable[QuestionKind] = _ASKABLE,
    quota_per_month: int = 100, days: int = 365, agent: bool = False, explicit_special: Iterable[Category] = (),
    influence: bool = False, post_mortem: Iterable[Purpose] = (), clock: Clock | None = None,
) -> Terms:  # fmt: skip
    """Return what a company asks for from now on, nothing sensitive and no influence among it unless that is said.

    Args:
        company_id: Who asks.
        purposes: What the answers serve.
        necessary: Categories without which the purposes cannot be served.
        data_from: First month of data.
        data_to: Last month of data.
        handling: How the company treats what it learns.
        optional: Categories that would help.
        questions: Kinds of question.
        quota_per_month: Answers a month.
        days: How long the consent is to last.
        agent: Whether software decides by itself what to ask.
        explicit_special: Special categories that are read or that an answer could reveal; the person opts in one by one.
        influence: Whether a purpose tries to influence the person.
        post_mortem: Purposes that would stay allowed after the person's death.
        clock: Tells the time; the machine's own by default.

    Raises:
        BadConsent: The fields contradict each other.
    """
    now_s = unix_s((clock or SystemClock()).now())
    return Terms(
        kind=ConsentKind.COMPANY,
        grantee=company_id,
        purposes=frozenset(purposes),
        questions=frozenset(questions),
        necessary=frozenset(necessary),
        optional=frozenset(optional),
        data_from=data_from,
        data_to=data_to,
        not_before=now_s,
        not_after=now_s + days * DAY_S,
        quota_per_month=quota_per_month,
        explicit_special=frozenset(explicit_special),
        influence_opt_in=influence,
        agent_allowed=agent,
        post_mortem=frozenset(post_mortem),
        handling=handling,
    )


def verify_asked(api: Api, unverified_jws: str) -> AskedBy:
    """Return what a company asks for, if its registered question key signed it.

    The company's first key makes its id, so the service cannot put a key of its own in; for a
    company that changed its keys, the service's word on the newest one counts.

    Raises:
        BadRequest: Another key signed it, or it names another grantee than its signer.
        BadConsent: It is no consent request.
        BadJws: Malformed.
    """
    jws = parse_jws(unverified_jws, REQUEST_TYPE)
    unverified_terms = jws.unverified_claims.get("terms")
    grantee = unverified_terms.get("grantee") if isinstance(unverified_terms, dict) else None
    if not isinstance(grantee, str) or _COMPANY_ID.fullmatch(grantee) is None:
        raise BadRequest("The consent request names no company.")
    name, key = verify_company(api.get(f"/v1/companies/{grantee}"), grantee)
    request = parse_consent_request(jws.verify(key))
    if request.terms.kind is not ConsentKind.COMPANY:
        raise BadRequest("A company can only ask for a company consent.")
    return AskedBy(request, unverified_jws, name)


def verify_company(company: Any, company_id: str) -> tuple[str, JwsKey]:
    """Return the company's name, from the record that it signed itself, and its question key.

    Raises:
        BadRequest: The record is another company's, or its key is not the one that makes the id.
        BadJws: The record is not signed as it must be.
    """
    record = parse_jws(field(company, "record"), COMPANY_TYPE)
    claims = record.unverified_claims
    key = read_jwk(claims.get("question_key", ""))
    if claims.get("version") == 1:
        record.verify(key)
        if company_id_of(key) != company_id:
            raise BadRequest("The service shows a key for this company that does not make its id; do not trust it.")
    if claims.get("company_id") != company_id:
        raise BadRequest("The service shows another company's record.")
    return str(claims.get("name")), key
