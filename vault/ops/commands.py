"""`twinvault operator ...`: set up, admit companies, train, look after."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from vault.clock import SystemClock, unix_s
from vault.encoding import b64u
from vault.evidence import auditors
from vault.evidence.auditors import AuditScope
from vault.imprint.features import Cadence
from vault.jobs import queue
from vault.jobs.queue import JobId, JobState
from vault.ops import archive, doctor
from vault.ops.admission import companies_app
from vault.ops.cards import models_app
from vault.ops.erasing import erase_for, show_retention
from vault.ops.journal import journal_app
from vault.ops.keys import keys_app
from vault.ops.policies import policies_app
from vault.ops.site import Site, set_up
from vault.ops.terminal import HERE, AsJson, SiteFolder, parse_vault_id, read_text, say, transaction
from vault.parties import marks
from vault.proof.note import COSIGNATURE, parse_verifier_key
from vault.recovery import Recovered
from vault.seal.audit import parse_registration
from vault.tlog.files import LogFiles
from vault.tlog.witnesses import WitnessSite
from vault.twin.requests import request_training

operator = typer.Typer(add_completion=False, no_args_is_help=True, help="Run and look after an installation.")
operator.add_typer(companies_app, name="companies")
operator.add_typer(models_app, name="models")
auditors_app = typer.Typer(no_args_is_help=True, help="Register and list auditors; every access of theirs is logged.")
operator.add_typer(auditors_app, name="auditors")
operator.add_typer(policies_app, name="policies")
operator.command("erase")(erase_for)
operator.command("retention")(show_retention)
operator.add_typer(journal_app, name="journal")
operator.add_typer(keys_app, name="keys")

_POLL_S = 0.5
_DAY = ["%Y-%m-%d"]


@operator.command()
def init(
    site: Annotated[Path, typer.Argument(help="Folder to make.")] = HERE,
    *,
    issuer: Annotated[str, typer.Option(help="Public base URL.")] = "http://127.0.0.1:8400",
    log_origin: Annotated[str, typer.Option(help="Name of the log, on every checkpoint.")] = "twinvault.example/log",
    database_url: Annotated[str | None, typer.Option(help="Main database; SQLite in the folder by default.")] = None,
    shortkeys_url: Annotated[str | None, typer.Option(help="Short-key database, another than the main one.")] = None,
    cadence: Annotated[Cadence, typer.Option(help="How days become imprint rows.")] = Cadence.DAILY,
    as_json: AsJson = False,
) -> None:
    """Make keys, settings, databases and the trust file; safe to run again."""
    folder = site.resolve()
    keyrings = set_up(
        Site(folder), issuer=issuer.rstrip("/"), log_origin=log_origin, database_url=database_url,
        shortkeys_url=shortkeys_url, now=SystemClock().now(), cadence=cadence.value,
    )  # fmt: skip
    trust = Site(folder).trust_file
    say(
        as_json,
        {"site": str(folder), "trust": str(trust), "operator": b64u(keyrings.operator_key)},
        f"Installation of {Site(folder).environment('app')['VAULT_ISSUER']} made in {folder}.\n"
        f"Give {trust} to owners, companies and auditors.\n"
        f"Move {keyrings.operator} to a machine that is not online.\nStart it: twinvault serve {folder}",
    )


@operator.command("sandbox")
def make_sandbox(
    vault: Annotated[str, typer.Argument(help="The vault's id, as `owner unlock` shows it.")],
    *,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Let test companies ask this vault: one of your own, with invented traces; see VAULT_SANDBOX."""
    vault_id = parse_vault_id(vault)
    with transaction(site) as session:
        marks.make_sandbox(session, vault_id)
    say(as_json, {"vault": vault, "sandbox": True}, f"{vault} is a sandbox: anyone may register a company to ask it.")


@auditors_app.command("add")
def add_auditor(
    file: Annotated[Path, typer.Argument(help="Registration file that the auditor made.")],
    *,
    days: Annotated[int, typer.Option(help="For how many days from now; 0 ends its access.", min=0, max=3650)] = 90,
    since: Annotated[
        datetime | None, typer.Option(help="Show it nothing from before this day (UTC).", formats=_DAY)
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Nor from this day on (UTC).", formats=_DAY)] = None,
    opens: Annotated[
        int | None,
        typer.Option(help="Show decisions about so many consents only, which it chooses from a listing.", min=0),
    ] = None,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Begin an engagement: public parts, decisions under pseudonyms, no question and no answer."""
    not_after = SystemClock().now() + timedelta(days=days)
    default = AuditScope()
    scope = AuditScope(_day_s(since, default.from_s), _day_s(until, default.to_s))
    registration = parse_registration(read_text(file).encode())
    with transaction(site) as session:
        auditors.register_auditor(session, registration.name, registration.public_key, not_after, scope, opens=opens)
    say(
        as_json,
        {"auditor": registration.name, "access_until": f"{not_after:%Y-%m-%d}"},
        f"{registration.name} may audit until {not_after:%Y-%m-%d}.",
    )


def _day_s(day: datetime | None, default_s: int) -> int:
    return default_s if day is None else unix_s(day.replace(tzinfo=UTC))


@auditors_app.command("list")
def list_auditors(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """List auditors with the day on which their access ends, and how many consents they may still choose."""
    with transaction(site) as session:
        found = [
            {
                "auditor": item.name,
                "access_until": f"{datetime.fromtimestamp(item.not_after_s, UTC):%Y-%m-%d}",
                **({} if item.opens_left is None else {"opens_left": item.opens_left}),
            }
            for item in auditors.list_auditors(session)
        ]
    lines = "\n".join(
        f"{item['access_until']}  {item['auditor']}"
        + (f"  ({item['opens_left']} to choose)" if "opens_left" in item else "")
        for item in found
    )
    say(as_json, {"auditors": found}, lines or "No auditor is registered.")


@operator.command()
def train(
    *,
    site: SiteFolder = HERE,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is over; exit status 1 if no model came.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the worker to train a backbone on everyone with a live cohort consent."""
    with transaction(site) as session:
        job = request_training(session, now=SystemClock().now())
    if not wait:
        say(as_json, {"job": job}, f"Training is queued as job {job}; the worker's log tells how it goes.")
        return
    outcome = _outcome(site, job)
    say(as_json, {"job": job, "outcome": outcome}, f"Training is over: {outcome}.")
    if outcome != "released":
        raise typer.Exit(1)


def _outcome(site: Path, job: JobId) -> str:
    """Wait until a job is over; return `released`, or the slug of what was refused."""
    while True:
        with transaction(site) as session:
            found = queue.find(session, job)
        if found is None or found.state in {JobState.DONE, JobState.FAILED}:
            return (found.reason if found else "forgotten") or "released"
        time.sleep(_POLL_S)


@operator.command("doctor")
def examine(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Check database, log, keys, trust file and jobs; exit status 1 if anything is wrong."""
    found = Site(site.resolve())
    found.environment("app")  # no check could say anything else where there is no installation
    findings = list(doctor.examine(found, SystemClock().now()))
    lines = "\n".join(f"{'ok  ' if item.ok else 'FAIL'}  {item.name}: {item.detail}" for item in findings)
    record = {"findings": [{"name": item.name, "ok": item.ok, "detail": item.detail} for item in findings]}
    say(as_json, record, lines)
    if not all(item.ok for item in findings):
        raise typer.Exit(1)


@operator.command("publish-log")
def publish_log(
    folder: Annotated[Path, typer.Argument(help="Folder that a file server publishes; made if missing.")],
    *,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the log as static files (C2SP tlog-tiles) into a folder; what is there already is compared with it."""
    place = Site(site.resolve())
    with place.opened() as (database, _), database.snapshot() as session:
        head = LogFiles(folder, place.log_key).recover(session)
    say(as_json, {"folder": str(folder), "leaves": head.size}, f"Published {head.size} leaves in {folder}.")


@operator.command("add-witness")
def add_witness(
    key: Annotated[str, typer.Argument(help="The witness's key, as `twinvault witness init` prints it.")],
    url: Annotated[str, typer.Argument(help="Where it is asked.")],
    *,
    quorum: Annotated[int, typer.Option("--quorum", help="How many witnesses clients demand.", min=1)] = 1,
    max_age_s: Annotated[int, typer.Option("--max-age-s", help="Seconds that their view may be old.", min=1)] = 600,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Let a witness cosign the log, from the next start on; hand the new trust file to clients when it does."""
    witness = WitnessSite(parse_verifier_key(key, COSIGNATURE), url)
    plan = Site(site.resolve()).add_witness(witness, quorum, max_age_s)
    names = [known.key.name for known in plan.sites]
    say(as_json, {"witnesses": names, "quorum": plan.quorum}, f"{len(names)} witnesses, {plan.quorum} demanded.")


@operator.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="New folder for the copy.")],
    *,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Copy the main database into a new folder; the service may run. Short keys stay out on purpose."""
    size = archive.back_up(Site(site.resolve()), folder)
    say(as_json, {"folder": str(folder), "leaves": size}, f"Backed up into {folder}; its log has {size} leaves.")


@operator.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `operator backup` made.")],
    *,
    site: SiteFolder = HERE,
    replace: Annotated[bool, typer.Option("--replace", help="Accept that the log forks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in place of the main database; stop the service first."""
    done = archive.restore(folder, Site(site.resolve()), replace=replace, now=SystemClock().now())
    found = done.recovered
    record = {
        "leaves": done.leaves, "lacking": found.lacking, "consents_ended": found.consents, "charges": found.charges,
        "models_withdrawn": found.models, "freezes_and_profiles": found.people, "successions": found.successions, "companies_suspended": found.companies,
        "companies_rotated": found.rotated, "companies_registered": [*found.registered],
        "companies_lost": [*found.lost], "devices_revoked": found.devices, "auditors_ended": done.auditors,
        "frozen": done.frozen,
    }  # fmt: skip
    again = (
        f"The journal knew {found.lacking} events that the backup lacks: {found.consents} consents were ended again,"
        f" {found.charges} releases charged again, {found.people} freezes and profiles followed again,"
        f" {found.successions} owner keys replaced again,"
        f" {found.companies} companies suspended again, {found.rotated} companies' new records followed again,"
        f" {found.devices} devices revoked again."
        + _since(found)
        + " Every session, token and code from before is over: owners sign in again, companies ask for new tokens,"
        f" {done.auditors} auditors have no access until you add them again."
    )
    say(
        as_json,
        record,
        f"Restored; the log has {done.leaves} leaves. {done.frozen or again}\nRun `twinvault operator doctor` next.",
    )
    if done.frozen:
        raise typer.Exit(1)


def _since(found: Recovered) -> str:
    told = [
        f" {company} was registered since and is suspended: `twinvault operator companies reinstate {company}`"
        " once you know that it is still whom you approved."
        for company in found.registered
    ]
    told += [f" {company} was registered since and is not here: it has to register again." for company in found.lost]
    return "".join(f"\n{line}" for line in told)
