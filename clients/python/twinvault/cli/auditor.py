"""`twinvault auditor`: verify, offline, against pinned keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from twinvault.auditor import Auditor
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, ProfileName
from twinvault.profile import TRUST, read_trust
from vault.proof.verify import Report

auditor = typer.Typer(no_args_is_help=True, help="Verify answers and whole months offline, against keys you pinned.")

_USAGE = 2
_FAILED = 1


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
    common.emit(_report_json(report), as_json=as_json)
    if report.failures:
        raise typer.Exit(_FAILED)


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "leaves": report.leaves,
        "checked": {step.name.lower(): count for step, count in sorted(report.checked.items())},
        "failures": [
            {"step": item.step.value, "name": item.step.name.lower(), "leaf": item.leaf_index, "detail": item.detail}
            for item in report.failures
        ],
    }
