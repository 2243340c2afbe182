"""`twinvault auditor`: fetch bundles; verify, offline, against pinned keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from twinvault.auditor import Auditor, read_file
from twinvault.audits import fetch_audit, unreadable, verify_audit
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, ProfileName, TrustFile
from twinvault.processes import Processes, processors
from twinvault.profile import TRUST, read_trust, write_private
from vault.proof.errors import InvalidProof
from vault.proof.listing import Listing, parse_listing
from vault.proof.report import Report
from vault.seal.errors import SealError
from vault.seal.fields import parse_hash

auditor = typer.Typer(no_args_is_help=True, help="Verify answers and whole months offline, against keys you pinned.")

ListingFile = Annotated[
    Path | None, typer.Option("--listing", help="What consents were chosen from, where the audit opens those only.")
]

ProcessCount = Annotated[
    int | None,
    typer.Option(
        "--processes", help="Verify in so many processes; as many as there are processors if not given.", min=1
    ),
]

_DAY = ["%Y-%m-%d"]
_USAGE = 2
_FAILED = 1


@auditor.command()
def register(
    *,
    trust: TrustFile,
    name: Annotated[str, typer.Option("--name", help="Under which name the operator lists you.")],
    record: Annotated[Path, typer.Option("--record", help="Write the registration here; the operator adds it.")],
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Make an auditor's key and the registration that the operator adds."""
    _, registration = Auditor.register(common.folder_of(profile), read_trust(trust), name=name)
    write_private(record, registration + b"\n")
    common.emit({"record": str(record)}, as_json=as_json)


@auditor.command()
def listing(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="Write the listing into this file; one that is there must be the same.")
    ],
    choose: Annotated[
        int, typer.Option("--choose", help="Let so many consents be opened, picked by chance on this machine.", min=0)
    ] = 0,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="Let this row's consent be opened: its pseudonym. Repeatable.")
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Fetch what the engagement lists of consents under pseudonyms, and choose which of them a bundle opens."""
    found = Auditor.load(common.folder_of(profile), common.reach(common.load_profile(profile).trust))
    seen = read_file(out, "listing") if out.exists() else None
    data = found.choose(choose, [_pseudonym(name) for name in row or ()], seen)
    shown = parse_listing(data)
    write_private(out, data)
    people, opened = {item.person for item in shown.rows}, [item for item in shown.rows if item.opened]
    common.emit({"consents": len(shown.rows), "people": len(people), "opened": len(opened)}, as_json=as_json)


@auditor.command()
def bundle(
    *,
    out: Annotated[Path, typer.Option("--out", help="Write the bundle into this file, or an audit into this folder.")],
    first: Annotated[int | None, typer.Option("--first", help="First leaf index.", min=0)] = None,
    last: Annotated[int | None, typer.Option("--last", help="Last leaf index; at most 10,000 leaves.", min=0)] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", help="First day (UTC) of an audit.", formats=_DAY)
    ] = None,
    until: Annotated[datetime | None, typer.Option("--until", help="Day (UTC) after its last.", formats=_DAY)] = None,
    listing: ListingFile = None,
    processes: ProcessCount = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Fetch a stretch of the log with what it names, keep it, and verify it; exits 1 if anything does not hold.

    Either --first and --last (one file), or --since and --until (a folder of parts, of any length).
    """
    if listing is not None and (since is None or until is None):
        raise typer.BadParameter("A listing is of an audit: --listing goes with --since and --until.")
    found = Auditor.load(common.folder_of(profile), common.reach(common.load_profile(profile).trust))
    if first is not None and last is not None and since is None and until is None:
        data = found.fetch(first, last)
        write_private(out, data)
        show_report(found.verify_bytes(data, range(first, last + 1)), as_json=as_json)
    elif since is not None and until is not None and first is None and last is None:
        since_s, until_s = (int(day.replace(tzinfo=UTC).timestamp()) for day in (since, until))
        chosen_from = _read_listing(listing)
        fetch_audit(found, since_s, until_s, out, lambda end: typer.echo(f"fetched up to leaf {end}", err=True))
        with Processes(processes or processors()) as each:
            report = verify_audit(out, found.trust, chosen_from, each)
        show_report(report, as_json=as_json)
    else:
        typer.echo("twinvault: Give --first and --last, or --since and --until.", err=True)
        raise typer.Exit(_USAGE)


@auditor.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="An answer's or a month's bundle, or the folder of an audit.")],
    *,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="Trust file; the profile's pinned keys if not given.")
    ] = None,
    listing: ListingFile = None,
    processes: ProcessCount = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Check everything that a bundle shows; exits 1 if anything does not hold or cannot be read, 2 without keys."""
    if trust is not None:
        found = Auditor(read_trust(trust))
    elif (common.folder_of(profile) / TRUST).is_file():
        found = Auditor.load(common.folder_of(profile))
    else:
        typer.echo("twinvault: Keys in a bundle prove nothing: name a trust file with --trust.", err=True)
        raise typer.Exit(_USAGE)
    try:
        chosen_from = _read_listing(listing)
        with Processes(processes or processors()) as each:
            if bundle.is_dir():
                report = verify_audit(bundle, found.trust, chosen_from, each)
            else:
                report = found.verify(bundle, each)
    except InvalidProof as error:
        report = unreadable(error)
    show_report(report, as_json=as_json)


def _pseudonym(text: str) -> bytes:
    try:
        return parse_hash(text)
    except SealError as error:
        raise typer.BadParameter(
            "A pseudonym has 43 letters, digits, - or _; the listing names it as `consent`.", param_hint="--row"
        ) from error


def _read_listing(file: Path | None) -> Listing | None:
    return None if file is None else parse_listing(read_file(file, "listing"))


def show_report(report: Report, *, as_json: bool) -> None:
    """Write what a verifier found; end with status 1 if anything does not hold."""
    common.emit(_report_json(report), as_json=as_json)
    if report.failures:
        raise typer.Exit(_FAILED)


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "leaves": report.leaves,
        "checked": {step.name.lower(): count for step, count in sorted(report.checked.items())},
        "withheld": {step.name.lower(): count for step, count in sorted(report.withheld.items())},
        "erased": dict(sorted(report.erased.items())),
        "failures": [
            {"step": item.step.value, "name": item.step.name.lower(), "leaf": item.leaf_index, "detail": item.detail}
            for item in report.failures
        ],
    }
