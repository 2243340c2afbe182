"""`twinvault operator companies ...`: invite, admit, list, suspend and reinstate companies."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from vault.clock import SystemClock
from vault.oauth import registration
from vault.ops.terminal import HERE, AsJson, SiteFolder, read_text, say, transaction
from vault.parties import companies
from vault.parties.companies import CompanyStatus

companies_app = typer.Typer(no_args_is_help=True, help="Invite, admit, list, suspend and reinstate companies.")

CompanyArgument = Annotated[str, typer.Argument(help="The company's id, from `companies list` or `companies waiting`.")]


@companies_app.command("add")
def add_company(
    file: Annotated[Path, typer.Argument(help="Registration file that the company made.")],
    *,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Approve a company: from here on owners may give it consents."""
    record = read_text(file)
    with transaction(site) as session:
        company = companies.register(session, record, now=SystemClock().now())
    say(
        as_json,
        {"company_id": company.company_id, "name": company.name},
        f"{company.name} is registered as {company.company_id}.",
    )


@companies_app.command("update")
def update_company(
    file: Annotated[Path, typer.Argument(help="The company's next record, signed by its question key in force.")],
    *,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Put a company's next record in force: another name, or new keys where it lost the one that authenticates it."""
    record = read_text(file)
    with transaction(site) as session:
        company = registration.put_next(session, record, now=SystemClock().now())
    say(
        as_json,
        {"company_id": company.company_id, "name": company.name, "version": company.version},
        f"Version {company.version} of {company.company_id} is in force; owners are shown it as {company.name}.",
    )


@companies_app.command("list")
def list_all(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """List companies with their status."""
    with transaction(site) as session:
        found = [
            {"company_id": item.company_id, "name": item.name, "status": item.status.value}
            for item in companies.list_companies(session, at_most=10_000)
        ]
    lines = "\n".join(f"{item['company_id']}  {item['status']:9}  {item['name']}" for item in found)
    say(as_json, {"companies": found}, lines or "No company is registered.")


@companies_app.command("waiting")
def list_waiting(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """List companies that registered themselves over HTTP and wait for `approve`."""
    with transaction(site) as session:
        found = [
            {
                "company_id": item.company_id,
                "name": item.name,
                "contact": item.contact,
                "since": f"{item.received_at:%Y-%m-%d}",
                "invited": item.invited,
            }
            for item in registration.list_waiting(session)
        ]
    lines = "\n".join(
        f"{item['company_id']}  {item['since']}  {'invited' if item['invited'] else '       '}  {item['name']}"
        f"  {item['contact']}"
        for item in found
    )
    say(as_json, {"waiting": found}, lines or "No company waits.")


@companies_app.command()
def invite(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Print an invitation for one company: it registers over HTTP however many wait, for `approve` as any other."""
    now = SystemClock().now()
    with transaction(site) as session:
        token = registration.invite(session, now=now)
    until = f"{now + timedelta(seconds=registration.INVITED_S):%Y-%m-%d}"
    say(as_json, {"invitation": token, "until": until}, token)


@companies_app.command()
def approve(company: CompanyArgument, *, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Approve a company that waits: from here on owners may give it consents."""
    with transaction(site) as session:
        made = registration.approve(session, companies.parse_company_id(company), now=SystemClock().now())
    say(as_json, {"company_id": made.company_id, "name": made.name}, f"{made.name} is registered as {made.company_id}.")


@companies_app.command()
def reject(
    company: Annotated[str | None, typer.Argument(help="The company's id, from `companies waiting`.")] = None,
    *,
    uninvited: Annotated[bool, typer.Option("--uninvited", help="All that wait and that nobody invited.")] = False,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Forget a company that waits, or after a flood all that nobody invited; they may register again."""
    if (company is None) is not uninvited:
        raise typer.BadParameter("Say the id of one company, or --uninvited.")
    with transaction(site) as session:
        if company is None:
            gone = registration.reject_uninvited(session)
        else:
            registration.reject(session, companies.parse_company_id(company))
    if company is None:
        say(as_json, {"rejected": gone}, f"{gone} uninvited registrations wait no more.")
    else:
        say(as_json, {"company_id": company}, f"{company} waits no more.")


@companies_app.command()
def suspend(company: CompanyArgument, *, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Refuse a company's questions from now on; consents stay as they are."""
    _set_status(company, CompanyStatus.SUSPENDED, site, as_json=as_json)


@companies_app.command()
def reinstate(company: CompanyArgument, *, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Let a suspended company ask again."""
    _set_status(company, CompanyStatus.ACTIVE, site, as_json=as_json)


def _set_status(company: str, status: CompanyStatus, site: Path, *, as_json: bool) -> None:
    with transaction(site) as session:
        companies.set_status(session, companies.parse_company_id(company), status, now=SystemClock().now())
    say(as_json, {"company_id": company, "status": status.value}, f"{company} is {status.value}.")
