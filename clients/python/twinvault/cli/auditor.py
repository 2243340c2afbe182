"""`twinvault auditor`: fetch bundles; verify, offline, against pinned keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from twinvault.auditor import Auditor
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, ProfileName, TrustFile
from twinvault.profile import TRUST, read_trust, write_private
from vault.proof.verify import Report

auditor = typer.Typer(no_args_is_help=True, help="Verify answers and whole months offline, against keys you pinned.")

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
def bundle(
    *,
    first: Annotated[int, typer.Option("--first", help="First leaf index.", min=0)],
    last: Annotated[int, typer.Option("--last", help="Last leaf index; at most 10,000 leaves at a time.", min=0)],
    out: Annotated[Path, typer.Option("--out", help="Write the bundle here.")],
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Fetch a range of the log with what it names, keep it, and verify it; exits 1 if anything does not hold."""
    folder = common.folder_of(profile)
    found = Auditor.load(folder, common.reach(common.load_profile(profile).trust))
    data = found.fetch(first, last)
    write_private(out, data)
    _show(found.verify_bytes(data), as_json=as_json)


@auditor.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="An answer's or a month's bundle.")],
    *,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="Trust file; the profile's pinned keys if not given.")
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Check everything that a bundle shows; exits 1 if anything does not hold."""
    if trust is not None:
        found = Auditor(read_trust(trust))
    elif (common.folder_of(profile) / TRUST).is_file():
        found = Auditor.load(common.folder_of(profile))
    else:
        typer.echo("twinvault: Keys in a bundle prove nothing: name a trust file with --trust.", err=True)
        raise typer.Exit(_USAGE)
    report = found.verify(bundle)
    _show(report, as_json=as_json)


def _show(report: Report, *, as_json: bool) -> None:
    common.emit(_report_json(report), as_json=as_json)
    if report.failures:
        raise typer.Exit(_FAILED)


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "leaves": report.leaves,
        "checked": {step.name.lower(): count for step, count in sorted(report.checked.items())},
        "withheld": {step.name.lower(): count for step, count in sorted(report.withheld.items())},
        "failures": [
            {"step": item.step.value, "name": item.step.name.lower(), "leaf": item.leaf_index, "detail": item.detail}
            for item in report.failures
        ],
    }
