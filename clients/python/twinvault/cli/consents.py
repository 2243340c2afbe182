"""`twinvault owner`: decide who may ask, change it, end it, and keep the proof."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from twinvault.api import ApiError, ClientError
from twinvault.approvals import Waiting
from twinvault.authorities import complain_to
from twinvault.cli import common
from twinvault.cli.authorities import authorities_json
from twinvault.cli.common import DEFAULT_PROFILE, PURCHASE, AsJson, PassphraseFile, ProfileName, Said, TrustFile, Yes
from twinvault.cli.limits import Limits, with_limits
from twinvault.consent_receipts import ConsentReceipt, verify_consent_receipt
from twinvault.consents import Changed, OwnConsent
from twinvault.notice import after_withdrawal, asks, explicit_steps
from twinvault.owner import Owner
from twinvault.profile import read_trust, write_private
from twinvault.terms import AskedBy
from vault.clock import DAY_S, SystemClock, unix_s, utc_day
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.schema.consent import RENEW_WITHIN_S
from vault.schema.language import LABELS, Language
from vault.schema.terms import ConsentKind, Terms

consent_commands = typer.Typer()

_COMPANY_DAYS: Final = 30
_OWN_DAYS: Final = 365
_ANY: Final = "any"


class Order(StrEnum):
    """In which order consents are listed."""

    GIVEN = "given"
    UNTIL = "until"
    USED = "used"


ConsentArgument = Annotated[str, typer.Argument(help="The consent's id, from `owner consents`.")]
Code = Annotated[str, typer.Argument(help="The short code that the browser shows, or a name from `owner requests`.")]


@consent_commands.command()
def consents(
    *,
    live: Annotated[bool, typer.Option("--live", help="Only those in force.")] = False,
    grantee: Annotated[str | None, typer.Option("--grantee", help="Only those given to this company id.")] = None,
    search: Annotated[
        str,
        typer.Option("--search", help="Only those with this in company, purposes, questions, categories or events."),
    ] = "",
    sort: Annotated[Order, typer.Option("--sort", help="Oldest first, soonest over first, or last used first.")] = (
        Order.GIVEN
    ),
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """List every consent, ended ones included, with its changes, how it was used and where you may complain."""
    found = common.unlock_owner(profile, passphrase_file)
    uses: dict[tuple[str, str], list[int]] = defaultdict(list)
    logged: dict[str, int] = {}
    for event in found.history():
        personal = event["personal"]
        logged.setdefault(str(personal.get("consent")), int(event["index"]))
        uses[str(personal.get("consent")), str(event["kind"])].append(int(personal.get("at") or 0))
    shown = [item for item in found.consents() if item.live or not live]
    shown = [item for item in shown if grantee in (None, item.current.terms.grantee)]
    shown.sort(key=lambda item: (item.versions[0].event_time, logged.get(b64u(item.id), 0)))
    if sort is Order.UNTIL:
        shown.sort(key=lambda item: item.current.terms.not_after)
    elif sort is Order.USED:
        shown.sort(key=lambda item: max(uses.get((b64u(item.id), LeafKind.ANSWER.value), (0,))), reverse=True)
    terms = [item.current.terms for item in shown]
    names = found.companies(one.grantee for one in terms if one.kind is ConsentKind.COMPANY)
    home = str(found.profile.record.get("country", ""))
    made = [_consent_json(item, uses, names, home) for item in shown]
    called = [_called(row, found.language) for row in made]
    kept = [search.casefold() in _words(row) + _words(plain) for row, plain in zip(made, called, strict=True)]
    rows = [*compress(made if as_json else called, kept)]
    named = {country for row in rows for country in row["complain_to"]}
    common.emit({"consents": rows, **authorities_json(set() if _ANY in named else named)}, as_json=as_json)


@consent_commands.command()
@with_limits
def give(
    *,
    limits: Limits,
    kind: Annotated[
        ConsentKind | None, typer.Option("--kind", help="`self` or `cohort`, where no company asked.")
    ] = None,
    request: Annotated[Path | None, typer.Option("--request", help="A company's consent request.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give a consent: what a company asked for or less, your own twin, or the cohort's training.

    To a company: 30 days, necessary data only, nothing sensitive, unless you say more.
    """
    if (kind is None) is (request is None) or kind is ConsentKind.COMPANY:
        raise typer.BadParameter("Give --request FILE for a company, or --kind self or --kind cohort.")
    found = common.unlock_owner(profile, passphrase_file, language=language)
    if request is not None:
        asked = found.read_request(common.read_text(request).strip())
        changed = found.give_company(asked, _agreed(found, asked, limits, yes=yes))
    else:
        assert kind is not None
        terms = found.terms_for(kind, common.parse_categories(limits.category or [PURCHASE]))
        terms = limits.keep(terms, now_s=_now_s())
        common.agree(found.notice(terms), yes=yes, each=explicit_steps(terms, found.language), language=found.language)
        changed = found.give(terms)
    _emit_changed(changed, as_json=as_json)


@consent_commands.command()
@with_limits
def narrow(
    *,
    consent: ConsentArgument,
    limits: Limits,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Allow less than before; keys beyond it are taken away at once."""
    consent_id = common.parse_consent_id(consent)
    found = common.unlock_owner(profile, passphrase_file, language=language)
    terms = limits.keep(found.consent(consent_id).current.terms, now_s=_now_s())
    common.agree(found.notice(terms), yes=yes, each=explicit_steps(terms, found.language), language=found.language)
    _emit_changed(found.narrow(consent_id, terms), as_json=as_json)


@consent_commands.command()
@with_limits
def renew(
    *,
    consent: ConsentArgument,
    limits: Limits,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let a consent last longer with fresh keys, never beyond what was asked: 30 days more for a company."""
    consent_id = common.parse_consent_id(consent)
    found = common.unlock_owner(profile, passphrase_file, language=language)
    terms = _renewed(found, found.consent(consent_id), limits)
    common.agree(found.notice(terms), yes=yes, each=explicit_steps(terms, found.language), language=found.language)
    _emit_changed(found.renew(consent_id, terms), as_json=as_json)


@consent_commands.command()
def withdraw(
    consent: ConsentArgument,
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """End a consent; when this returns, its keys are gone, its tokens are dead and the log shows it.

    What the company already received stays with it; `ask-erasure` writes the letter that asks it to delete that.
    """
    consent_id = common.parse_consent_id(consent)
    found = common.unlock_owner(profile, passphrase_file)
    changed = found.withdraw(consent_id)
    _emit_changed(changed, as_json=as_json, then=after_withdrawal(changed.version.terms.kind, consent, found.language))


@consent_commands.command()
def receipt(
    consent: ConsentArgument,
    *,
    version: Annotated[int | None, typer.Option("--version", help="Which version; the newest if not given.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also keep the receipt here, as JSON.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    as_json: AsJson = False,
) -> None:
    """Show the receipt of one version: what was signed, and the proof that the log has it."""
    consent_id = common.parse_consent_id(consent)
    found = common.unlock_owner(profile, passphrase_file, language=language)
    held, kept = found.receipt(consent_id, version or found.consent(consent_id).current.version)
    if out is not None:
        write_private(out, json.dumps(kept).encode() + b"\n")
    _show_receipt(held, found.language, kept if as_json else None)


@consent_commands.command()
def handovers(
    consent: ConsentArgument,
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Check which of the service's keys hold the keys you handed over, and that each step is signed and logged."""
    found = common.unlock_owner(profile, passphrase_file).handed_over(common.parse_consent_id(consent))
    rows = [
        {
            "keys": item.keys.value,
            "compartments": item.compartments,
            "epochs": list(item.epochs),
            "leaves": list(item.indexes),
        }
        for item in found
    ]
    common.emit({"handovers": rows}, as_json=as_json)


@consent_commands.command("verify-receipt")
def verify_receipt(
    file: Annotated[Path, typer.Argument(help="A receipt kept by `receipt --out`.")],
    *,
    trust: TrustFile,
    language: Said = None,
    as_json: AsJson = False,
) -> None:
    """Check a kept receipt without the service and without your vault; exits 1 if it does not hold."""
    pinned = read_trust(trust)
    try:
        kept = json.loads(file.read_text("utf-8"))
        held = verify_consent_receipt(kept, pinned)
    except (ValueError, RecursionError, ApiError) as error:
        raise ClientError(f"{file} is not a receipt.") from error
    _show_receipt(held, language or Language.EN, kept if as_json else None)


@consent_commands.command()
def requests(
    code: Annotated[str | None, typer.Argument(help="A code or name, to see what exactly is asked.")] = None,
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    as_json: AsJson = False,
) -> None:
    """List what companies ask you to renew; with a code or name, show what one asks, as a notice made on this machine.

    A company that holds no consent of yours cannot address you: it sends your browser, which shows a code.
    """
    found = common.unlock_owner(profile, passphrase_file, language=language)
    if code is None:
        common.emit({"requests": [_waiting_json(item) for item in found.requests()]}, as_json=as_json)
        return
    waiting = found.approvals.read(code)
    notice = found.notice(waiting.asked.request.terms, waiting.asked.company)
    common.emit({**_waiting_json(waiting), "notice": notice}, as_json=as_json)


@consent_commands.command()
@with_limits
def approve(
    *,
    code: Code,
    limits: Limits,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    language: Said = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give or renew what a company asks for, or less: 30 days and necessary data unless you say more."""
    found = common.unlock_owner(profile, passphrase_file, language=language)
    waiting = found.approvals.read(code)
    terms = _agreed(found, waiting.asked, limits, yes=yes)
    _emit_changed(found.answer(waiting, terms), as_json=as_json)


@consent_commands.command()
def deny(
    code: Code,
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse what a company asks for; it learns nothing but that. What you gave it before stays as it is."""
    approvals = common.unlock_owner(profile, passphrase_file).approvals
    approvals.read(code)
    approvals.deny(code)
    common.emit({"code": code, "denied": True}, as_json=as_json)


def _waiting_json(waiting: Waiting) -> dict[str, Any]:
    return {
        "name": waiting.name,
        "company": waiting.asked.company,
        "company_id": waiting.asked.request.terms.grantee,
        "renews": None if waiting.renew is None else b64u(waiting.renew),
        "decide_by": utc_day(waiting.expires_at_s),
    }


def _agreed(found: Owner, asked: AskedBy, limits: Limits, *, yes: bool) -> Terms:
    terms = limits.answer(asked.request.terms, now_s=_now_s(), usual_days=_COMPANY_DAYS)
    common.agree(
        found.notice(terms, asked.company), yes=yes, each=explicit_steps(terms, found.language), language=found.language
    )
    return terms


def _renewed(found: Owner, consent: OwnConsent, limits: Limits) -> Terms:
    """Return the terms of the version in force for a fresh while, inside what was asked."""
    terms, now_s = consent.current.terms, _now_s()
    company = terms.kind is ConsentKind.COMPANY
    most = found.read_request(consent.request).request.terms.not_after if company else None
    until = now_s + (limits.days or (_COMPANY_DAYS if company else _OWN_DAYS)) * DAY_S
    return replace(limits.keep(terms, now_s=now_s), not_after=until if most is None else min(most, until))


def _emit_changed(changed: Changed, *, as_json: bool, then: str = "") -> None:
    version = changed.version
    result = {
        "consent": b64u(version.consent_id),
        "version": version.version,
        "event": str(version.event),
        "until": utc_day(version.terms.not_after),
        "new_keys_for": list(changed.new_epoch),
    } | ({"then": then} if then else {})
    common.emit(result, as_json=as_json)


def _consent_json(
    item: OwnConsent, uses: Mapping[tuple[str, str], list[int]], names: Mapping[str, str], home: str
) -> dict[str, Any]:
    terms, name = item.current.terms, b64u(item.id)
    answers = uses.get((name, LeafKind.ANSWER.value), [])
    now_s = _now_s()
    return {
        "consent": name,
        "kind": str(terms.kind),
        "grantee": terms.grantee,
        "company": names.get(terms.grantee, ""),
        "event": str(item.current.event),
        "state": item.current.event.state,
        "live": item.live,
        "without_keys": item.live and not item.has_keys,
        "given": utc_day(item.versions[0].event_time),
        "until": utc_day(terms.not_after),
        "renew_now": item.live and terms.not_after - now_s <= RENEW_WITHIN_S,
        "categories": sorted(terms.categories),
        "special": sorted(terms.explicit_special),
        "purposes": sorted(terms.purposes),
        "questions": sorted(terms.questions),
        "data_from": terms.data_from,
        "data_to": terms.data_to,
        "quota_left": item.quota_left,
        "answers": len(answers),
        "last_answer": utc_day(max(answers)) if answers else None,
        "denials": len(uses.get((name, LeafKind.DENIAL.value), [])),
        "changes": [f"{version.version} {version.event} {utc_day(version.event_time)}" for version in item.versions],
        "rights": terms.handling.privacy_rights,
        "complain_to": list(complain_to(terms.handling.jurisdiction, home=home)) or [_ANY],
    }


def _called(row: dict[str, Any], language: Language) -> dict[str, Any]:
    """Return a row with categories, purposes and questions as people call them."""
    labels = LABELS[language]
    called = {name: [labels[term] for term in row[name]] for name in ("categories", "special", "purposes")}
    return row | called | {"questions": [asks(kind, language) for kind in row["questions"]]}


def _words(row: Mapping[str, Any]) -> str:
    names = ("grantee", "company", "event", "rights", "categories", "purposes", "questions", "changes")
    return "\n".join(str(row[name]) for name in names).casefold()


def _show_receipt(held: ConsentReceipt, language: Language, kept: Any | None) -> None:
    if kept is None:
        typer.echo(common.clean(held.text(language)), nl=False)
    else:
        said = {"verified": True, "text": held.text(language), "notice": held.notice}
        typer.echo(json.dumps({**kept, **said}))


def _now_s() -> int:
    return unix_s(SystemClock().now())
