"""`twinvault executor`: what you do with your share when the owner of a vault is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from twinvault.api import ClientError
from twinvault.cli import common
from twinvault.cli.auditor import show_report
from twinvault.cli.common import AsJson
from twinvault.cli.legacy import day_of
from twinvault.executor import Executor, Seen
from twinvault.profile import write_private
from twinvault.shares import parse_share
from vault.encoding import b64u

executor = typer.Typer(no_args_is_help=True, help="Your share of somebody's legacy: look, declare, prove.")

Shares = Annotated[
    list[Path], typer.Option("--share", help="A share's file; to act, as many as the plan takes, each with --share.")
]
Reason = Annotated[str, typer.Option("--reason", help="For the owner or the certificate, at most 200 characters.")]


@executor.command()
def status(*, share: Shares, as_json: AsJson = False) -> None:
    """Show the plan that your share is of, and how far it has come; one share is enough."""
    common.emit(_told(_executor(share).look()), as_json=as_json)


@executor.command()
def declare(*, share: Shares, reason: Reason = "", as_json: AsJson = False) -> None:
    """Declare that the owner is gone: the owner is told, and the waiting period begins."""
    common.emit(_told(_executor(share).declare(reason)), as_json=as_json)


@executor.command()
def erase(
    *,
    share: Shares,
    certificate: Annotated[Path, typer.Option("--certificate", help="Keep the certificate in this file.")],
    confirm: Annotated[str, typer.Option("--confirm", help="The vault's id, from `status`: it is for good.")],
    steps: Annotated[
        Path | None, typer.Option("--steps", help="Keep in this file what it followed from; nobody else has it.")
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Erase everything that is kept about the owner, if the plan lets you, once your declaration is in force."""
    found = _executor(share)
    if confirm != b64u(found.vault):
        raise ClientError(f"Nothing was erased. Repeat the vault's id with --confirm {b64u(found.vault)}")
    for file in (certificate, *([steps] if steps else [])):
        common.require_writable(file)
    done = found.erase(reason)
    common.keep_certificate(certificate, done)
    if steps and done.steps:
        write_private(steps, done.steps)
    destroyed = {str(name): count for name, count in done.certificate.destroyed.items()}
    common.emit({"erased": True, "destroyed": destroyed, "certificate": str(certificate)}, as_json=as_json)


@executor.command()
def freeze(*, share: Shares, reason: Reason = "", as_json: AsJson = False) -> None:
    """Freeze a vault that answers after death, once your declaration is in force."""
    _executor(share).freeze(reason)
    common.emit({"frozen": True}, as_json=as_json)


@executor.command("open")
def open_sealed(*, share: Shares, as_json: AsJson = False) -> None:
    """Give the consents that the owner sealed in advance, once your declaration is in force; tell each company its id."""
    common.emit({"given": [b64u(name) for name in _executor(share).open_sealed()]}, as_json=as_json)


@executor.command()
def bundle(
    *, share: Shares, out: Annotated[Path, typer.Option("--out", help="Write the proof here.")], as_json: AsJson = False
) -> None:
    """Fetch the proof of every step so far, keep it, and verify it; exits 1 if anything does not hold."""
    data, report = _executor(share).bundle()
    write_private(out, data)
    show_report(report, as_json=as_json)


def _executor(files: list[Path]) -> Executor:
    shares = [parse_share(file.read_bytes()) for file in files]
    return Executor(shares, common.reach(shares[0].trust))


def _told(seen: Seen) -> dict[str, Any]:
    terms = seen.terms
    told: dict[str, Any] = {
        "vault": b64u(seen.plan.vault),
        "state": seen.state,
        "threshold": terms.threshold,
        "executors": terms.shares,
        "waiting_days": terms.waiting_days,
        "choice": str(terms.choice),
    }
    return told | ({"claim": b64u(seen.claim), "takes_effect": day_of(seen.until_s)} if seen.until_s else {})
