"""`twinvault owner erase`: see what would go, then let it go for good."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from twinvault.api import ClientError
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, PassphraseFile, ProfileName, Said
from twinvault.erasures import ErasedForGood
from twinvault.letters import answers_to, erasure_letter
from twinvault.owner import Owner
from twinvault.profile import write_private
from vault.encoding import b64u, dump_json
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period, Trace

erase_commands = typer.Typer()

_ERASE = "erase"
_STAYS = (
    "What stays: charges against your days (an erased day imported again is charged to the same cap), answers that"
    " companies already hold, shared models (each hid whether you took part), and backups until their retention ends,"
    " in which what you erase can no longer be opened."
)


@erase_commands.command("ask-erasure")
def ask_erasure(
    consent: Annotated[str, typer.Argument(help="The id of a consent that is over, from `owner consents`.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the receipt to enclose here, as JSON.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    as_json: AsJson = False,
) -> None:
    """Write the letter that asks a company to delete what it was told under a consent; you send it, to its rights address."""
    consent_id = common.parse_consent_id(consent)
    found = common.unlock_owner(profile, passphrase_file, language=language)
    current = found.consent(consent_id).current
    if current.event.live:
        raise ClientError(f"The consent is in force; end it first: twinvault owner withdraw {consent}")
    if current.terms.kind is not ConsentKind.COMPANY:
        raise ClientError("Nobody else was told anything under this consent; `owner erase` erases what is kept here.")
    (first, _), (newest, kept) = found.receipt(consent_id, 1), found.receipt(consent_id, current.version)
    answers = answers_to(consent_id, found.history())
    letter = erasure_letter(first, newest, answers, found.language)
    if out is not None:
        write_private(out, dump_json(kept) + b"\n")
    if as_json:
        typer.echo(json.dumps({"letter": letter, "to": current.terms.handling.privacy_rights, "answers": len(answers)}))
    else:
        typer.echo(common.clean(letter), nl=False)


@erase_commands.command()
def erase(
    *,
    category: Annotated[str | None, typer.Option("--category", help="Erase this category.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First month, YYYY-MM; all of them if not given.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last month, YYYY-MM.")] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", help="Erase one trace of that month, named SOURCE/ID; the rest is kept.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Erase all that is kept about you.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="For the certificate, at most 200 characters.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    confirm: Annotated[
        str | None, typer.Option("--confirm", help="`erase`, or the vault's id with --everything: do not ask.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Keep the certificate in this file.")
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Erase a trace, months, a category or everything; what is erased cannot be brought back by anyone."""
    if everything is (category is not None) or (everything and (first or last or trace)):
        raise typer.BadParameter("Name a --category, with or without months, or --everything.")
    months = tuple(None if text is None else common.parse_month(text, "--from and --to") for text in (first, last))
    if trace is not None and (months[0] is None or months[0] != months[1]):
        raise typer.BadParameter("With --trace, --from and --to name the one month that the trace is of.")
    if certificate is not None and not dry_run:
        common.require_writable(certificate)
    owner = common.unlock_owner(profile, passphrase_file)
    found = None if category is None else _compartments(owner, category, *months)
    preview = owner.erasures.preview(found)
    if trace is not None:
        preview["keeps"] = "all other traces of that month, sealed anew; the twin forgets that month"
    if dry_run:
        common.emit({**preview, "erased": False}, as_json=as_json)
        return
    _agree(owner, preview, confirm, everything=everything)
    done, extra = _carry_out(owner, found, trace, category=category, period=months[0], reason=reason)
    if certificate is not None:
        common.keep_certificate(certificate, done)
    common.emit({**_result(done), **extra}, as_json=as_json)


def _compartments(owner: Owner, category: str, first: Period | None, last: Period | None) -> Any:
    return owner.erasures.compartments(common.parse_categories([category])[0], first, last)


def _carry_out(
    owner: Owner, found: Any, trace: str | None, *, category: str | None, period: Period | None, reason: str
) -> tuple[ErasedForGood, dict[str, Any]]:
    if found is None:
        return owner.erasures.erase_everything(reason), {}
    if trace is None or category is None or period is None:
        return owner.erasures.erase(found, reason), {}
    source, _, name = trace.partition("/")

    def is_gone(one: Trace) -> bool:
        return (one.source, one.id) == (source, name)

    done, count = owner.erasures.erase_traces(common.parse_categories([category])[0], period, is_gone, reason)
    return done, {"traces": count}


def _agree(owner: Owner, preview: Any, confirm: str | None, *, everything: bool) -> None:
    expected = b64u(owner.vault) if everything else _ERASE
    if confirm is None:
        common.STDERR.print(preview, highlight=False)
        common.STDERR.print(_STAYS, highlight=False)
        if not sys.stdin.isatty():
            raise ClientError(
                f"Nobody is at the keyboard to confirm; read the above and repeat with --confirm {expected}."
            )
        confirm = typer.prompt(f"This is for good. Type {expected} to go on", err=True)
    if confirm != expected:
        raise ClientError("Nothing was erased: what was typed is not what confirms it.")


def _result(done: ErasedForGood) -> dict[str, Any]:
    said = done.certificate
    return {
        "erased": True,
        "erasure": b64u(said.erasure_id),
        "destroyed": {str(name): count for name, count in said.destroyed.items()},
        "models_kept": [{"model": b64u(one.manifest), "epsilon": one.epsilon_ppm / 1e6} for one in said.models],
        "renewed": [b64u(consent) for consent in done.renewed],
        "without_keys": [b64u(consent) for consent in done.keyless],
        "verified": True,
    }
