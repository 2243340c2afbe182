"""`twinvault company`: ask twins under consents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, PURCHASE, AsJson, BundleFile, ProfileName, TrustFile
from twinvault.company import Company
from twinvault.profile import read_trust, write_private
from vault.clock import SystemClock, unix_s
from vault.schema.question import QuestionKind
from vault.schema.terms import ConsentKind, Handling, Terms

company = typer.Typer(
    no_args_is_help=True, help="Ask twins under consents; every answer is verified before it is shown."
)

_DAY_S = 86_400


@company.command()
def register(
    *,
    trust: TrustFile,
    name: Annotated[str, typer.Option("--name", help="What owners are shown.")],
    contact: Annotated[str, typer.Option("--contact", help="Where owners reach you.")],
    record: Annotated[Path, typer.Option("--record", help="Write the signed record here; the operator registers it.")],
    agent: Annotated[bool, typer.Option("--agent", help="Software decides by itself what to ask.")] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Make a company's keys and the signed record that the operator registers."""
    made, signed = Company.register(
        common.folder_of(profile), read_trust(trust), name=name, contact=contact, agent=agent
    )
    write_private(record, signed.encode() + b"\n")
    common.emit({"company_id": made.company_id, "record": str(record)}, as_json=as_json)


@company.command()
def request(
    *,
    purpose: Annotated[list[str], typer.Option("--purpose", help="DPV purpose; may be repeated.")],
    controller: Annotated[str, typer.Option("--controller", help="Name and contact of the data controller.")],
    withdrawal: Annotated[str, typer.Option("--withdrawal", help="Where the person withdraws.")],
    rights: Annotated[str, typer.Option("--rights", help="Where the person exercises the other rights.")],
    out: Annotated[Path, typer.Option("--out", help="Write the signed request here; hand it to the owner.")],
    first: Annotated[str, typer.Option("--from", help="First month of data, YYYY-MM.")],
    last: Annotated[str, typer.Option("--to", help="Last month of data, YYYY-MM.")],
    category: common.Categories = [PURCHASE],  # noqa: B006  (Typer copies its defaults)
    optional: Annotated[list[str] | None, typer.Option("--optional", help="Category that would help.")] = None,
    question: Annotated[list[QuestionKind], typer.Option("--question", help="Kind of question.")] = [  # noqa: B006
        QuestionKind.NEXT_CHOICE,
        QuestionKind.RECOMMEND,
    ],
    quota: Annotated[int, typer.Option("--quota", help="Answers a month.", min=1)] = 100,
    days: Annotated[int, typer.Option("--days", help="How long the consent is to last.", min=1)] = 365,
    jurisdiction: Annotated[str, typer.Option("--jurisdiction", help="Law that applies.")] = "EU",
    location: Annotated[list[str], typer.Option("--location", help="Where answers are kept.")] = ["EU"],  # noqa: B006
    retention: Annotated[str, typer.Option("--retention", help="How long: ISO 8601, such as P30D.")] = "P30D",
    agent: Annotated[bool, typer.Option("--agent", help="Software decides by itself what to ask.")] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Sign what you ask a person for; the owner gives it, or less."""
    found = Company.load(common.folder_of(profile))
    now_s = unix_s(SystemClock().now())
    terms = Terms(
        kind=ConsentKind.COMPANY,
        grantee=found.company_id,
        purposes=frozenset(common.parse_purposes(purpose)),
        questions=frozenset(question),
        necessary=frozenset(common.parse_categories(category)),
        optional=frozenset(common.parse_categories(optional or [])),
        data_from=common.parse_month(first, "--from"),
        data_to=common.parse_month(last, "--to"),
        not_before=now_s,
        not_after=now_s + days * _DAY_S,
        quota_per_month=quota,
        explicit_special=frozenset(),
        influence_opt_in=False,
        agent_allowed=agent,
        post_mortem=frozenset(),
        handling=Handling(controller, jurisdiction, tuple(sorted(location)), retention, withdrawal, rights),
    )
    write_private(out, found.request_consent(terms).encode() + b"\n")
    common.emit({"request": str(out), "company_id": found.company_id}, as_json=as_json)


@company.command()
def ask(
    consent: Annotated[str, typer.Argument(help="The consent's id, from its owner.")],
    *,
    purpose: common.PurposeTerm,
    category: Annotated[str, typer.Option("--category", help="About what.")] = PURCHASE,
    top_n: common.TopN = 5,
    candidate: common.Candidates = None,
    bundle: BundleFile = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Ask a twin; the answer is shown only if its receipt holds."""
    consent_id = common.parse_consent_id(consent)
    question = common.question_of(category, purpose, top_n, candidate)
    loaded = common.load_profile(profile)
    answered = Company(loaded, common.reach(loaded.trust)).ask(consent_id, question)
    common.emit(common.answer_json(answered, bundle), as_json=as_json)
