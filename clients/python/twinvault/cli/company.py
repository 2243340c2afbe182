"""`twinvault company`: ask twins under consents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from twinvault.api import ApiError, ClientError, field
from twinvault.asking import DEADLINE_S, Requested, dump_requested, parse_requested
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, PURCHASE, AsJson, BundleFile, ProfileName, TrustFile
from twinvault.company import Company
from twinvault.prepared import Prepared
from twinvault.profile import read_trust, write_private
from twinvault.terms import asked_terms
from vault.encoding import b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.jose import COMPANY_TYPE, parse_jws
from vault.schema.company import parse_redirects
from vault.schema.question import QuestionKind
from vault.schema.terms import Handling
from vault.seal.ids import sha256

company = typer.Typer(
    no_args_is_help=True, help="Ask twins under consents; every answer is verified before it is shown."
)

proof = typer.Typer(
    no_args_is_help=True,
    help="Print requests that any HTTP client can send: everything that must be signed is signed.",
)
company.add_typer(proof, name="proof")

Nonce = Annotated[str, typer.Option("--nonce", help="The DPoP-Nonce header of any answer, at most a minute old.")]

_ASKED = "asked"
_WAIT = "company wait"


@company.command()
def register(
    *,
    trust: TrustFile,
    name: Annotated[str, typer.Option("--name", help="What owners are shown.")],
    contact: Annotated[str, typer.Option("--contact", help="Where owners reach you.")],
    record: Annotated[Path, typer.Option("--record", help="Write the signed record here; the operator registers it.")],
    redirect_uri: Annotated[
        list[str] | None,
        typer.Option("--redirect-uri", help="Where browsers are sent back to: https, or http://127.0.0.1/... here."),
    ] = None,
    agent: Annotated[bool, typer.Option("--agent", help="Software decides by itself what to ask.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Also file it at the service, for `approve` there.")] = False,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With --apply: a test company, for test vaults.")] = False,
    invitation: Annotated[
        Path | None, typer.Option("--invitation", help="With --apply: a file with the operator's invitation.")
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Make a company's keys and the signed record that the operator registers; --apply can be repeated."""
    if sandbox and not apply:
        raise typer.BadParameter("The service makes a company a test company: --sandbox goes with --apply.")
    if invitation is not None and not apply:
        raise typer.BadParameter("An invitation is for filing at the service: --invitation goes with --apply.")
    token = "" if invitation is None else common.read_text(invitation).strip()
    pinned, folder = read_trust(trust), common.folder_of(profile)
    if apply and folder.exists():  # made before; perhaps the service was down when it was to be filed
        made, uris = _load(profile), parse_redirects(redirect_uri or [])
        _require_said(made, {"name": name, "contact": contact, "agent": int(agent), "redirect_uris": uris})
    else:
        made, _ = Company.register(
            folder, pinned, name=name, contact=contact, agent=agent, redirect_uris=redirect_uri or [],
            api=common.reach(pinned),
        )  # fmt: skip
    write_private(record, made.profile.text("record").encode() + b"\n")
    result = {"company_id": made.company_id, "record": str(record)}
    if apply:
        result["status"] = made.apply(sandbox=sandbox, invitation=token)
    common.emit(result, as_json=as_json)


@company.command("rotate-keys")
def rotate_keys(*, profile: ProfileName = DEFAULT_PROFILE, as_json: AsJson = False) -> None:
    """Replace all your keys; tokens, requests and codes from before are over. Run it again if it was cut off."""
    found = _load(profile)
    version = found.rotate_keys()
    common.emit({"company_id": found.company_id, "version": version}, as_json=as_json)


@company.command()
def request(
    *,
    purpose: Annotated[list[str], typer.Option("--purpose", help="DPV purpose; may be repeated.")],
    controller: Annotated[str, typer.Option("--controller", help="Name and contact of the data controller.")],
    withdrawal: Annotated[str, typer.Option("--withdrawal", help="Where the person withdraws.")],
    rights: Annotated[str, typer.Option("--rights", help="Where the person exercises the other rights.")],
    first: Annotated[str, typer.Option("--from", help="First month of data, YYYY-MM.")],
    last: Annotated[str, typer.Option("--to", help="Last month of data, YYYY-MM.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Only write the signed request here, to hand it to an owner yourself.")
    ] = None,
    renews: Annotated[
        str | None, typer.Option("--renew", help="A consent that you hold; its owner finds the request by itself.")
    ] = None,
    category: common.Categories = [PURCHASE],  # noqa: B006  (Typer copies its defaults)
    optional: Annotated[list[str] | None, typer.Option("--optional", help="Category that would help.")] = None,
    question: Annotated[list[QuestionKind], typer.Option("--question", help="Kind of question.")] = [  # noqa: B006  (as above)
        QuestionKind.NEXT_CHOICE,
        QuestionKind.RECOMMEND,
    ],
    quota: Annotated[int, typer.Option("--quota", help="Answers a month.", min=1)] = 100,
    days: Annotated[int, typer.Option("--days", help="How long the consent is to last.", min=1)] = 365,
    jurisdiction: Annotated[str, typer.Option("--jurisdiction", help="Law that applies.")] = "EU",
    location: Annotated[list[str], typer.Option("--location", help="Where answers are kept.")] = ["EU"],  # noqa: B006  (as above)
    retention: Annotated[str, typer.Option("--retention", help="How long: ISO 8601, such as P30D.")] = "P30D",
    agent: Annotated[bool, typer.Option("--agent", help="Software decides by itself what to ask.")] = False,
    special: Annotated[
        list[str] | None,
        typer.Option("--special", help="Special category (health, belief ...) that is read or could show; one by one."),
    ] = None,
    influence: Annotated[bool, typer.Option("--influence", help="A purpose tries to influence the person.")] = False,
    after_death: Annotated[
        list[str] | None, typer.Option("--after-death", help="Purpose that would stay allowed after death.")
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Ask a person; send the browser to `url` within 90 seconds, then `wait`. The owner gives it, or less."""
    if out is not None and renews is not None:
        raise typer.BadParameter(
            "--renew asks through the service, --out hands the request over yourself: one of them."
        )
    found = _load(profile)
    handling = Handling(controller, jurisdiction, tuple(sorted(location)), retention, withdrawal, rights)
    terms = asked_terms(
        found.company_id, common.parse_purposes(purpose), common.parse_categories(category),
        data_from=common.parse_month(first, "--from"), data_to=common.parse_month(last, "--to"), handling=handling,
        optional=common.parse_categories(optional or [], "--optional"), questions=question, quota_per_month=quota, days=days, agent=agent,
        explicit_special=common.parse_categories(special or [], "--special"), influence=influence,
        post_mortem=common.parse_purposes(after_death or [], "--after-death"),
    )  # fmt: skip
    if out is not None:
        write_private(out, found.sign_request(terms).encode() + b"\n")
        common.emit({"request": str(out), "company_id": found.company_id}, as_json=as_json)
        return
    renewed = None if renews is None else common.parse_consent_id(renews, _WAIT)
    asked = found.request_consent(terms, renew=renewed)
    common.emit({"asked": _keep(found, asked), "url": asked.url}, as_json=as_json)


@company.command()
def wait(
    asked: Annotated[str | None, typer.Argument(help="What `request` printed as `asked`, if several wait.")] = None,
    *,
    landed: Annotated[
        str | None, typer.Option("--landed", help="The whole address that the browser was sent back to.")
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="How many seconds to wait.", min=0)] = DEADLINE_S,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Wait for the owner's decision; prints the consent's id and what was given, which may be less than was asked."""
    found = _load(profile)
    file = _kept(found, asked)
    granted = found.wait(parse_requested(parse_json(file.read_bytes())), landed=landed, deadline_s=timeout_s)
    file.unlink(missing_ok=True)
    common.emit({"consent": b64u(granted.consent_id), "granted": dict(granted.details)}, as_json=as_json)


@company.command()
def ask(
    consent: Annotated[str, typer.Argument(help="The consent's id, from its owner.")],
    *,
    purpose: common.PurposeTerm,
    category: Annotated[str, typer.Option("--category", help="About what.")] = PURCHASE,
    top_n: common.TopN = 5,
    candidate: common.Candidates = None,
    kind: common.AskedKind = None,
    step: common.Steps = None,
    bundle: BundleFile = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Ask a twin; the answer is shown only if its receipt holds."""
    consent_id = common.parse_consent_id(consent, _WAIT)
    question = common.question_of(category, purpose, top_n, candidate, kind=kind, steps=step)
    common.emit(common.answer_json(_load(profile).ask(consent_id, question), bundle), as_json=as_json)


@proof.command("token")
def prove_token(*, nonce: Nonce, profile: ProfileName = DEFAULT_PROFILE, as_json: AsJson = False) -> None:
    """Print the request for an access token, signed and ready to send once."""
    _show(_load(profile).prepare_token(nonce), as_json=as_json)


@proof.command("ask")
def prove_question(
    consent: Annotated[str, typer.Argument(help="The consent's id, from its owner.")],
    *,
    token_file: Annotated[Path, typer.Option("--token-file", help="The answer to the request for a token.")],
    nonce: Nonce,
    purpose: common.PurposeTerm,
    category: Annotated[str, typer.Option("--category", help="About what.")] = PURCHASE,
    top_n: common.TopN = 5,
    candidate: common.Candidates = None,
    kind: common.AskedKind = None,
    step: common.Steps = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Print a question, signed and ready to send once; what comes back is a bundle for `auditor verify`."""
    question = common.question_of(category, purpose, top_n, candidate, kind=kind, steps=step)
    token = _read_token(token_file)
    consent_id = common.parse_consent_id(consent, _WAIT)
    _show(_load(profile).prepare_question(consent_id, question, token=token, nonce=nonce), as_json=as_json)


def _require_said(made: Company, said: Mapping[str, object]) -> None:
    claims = parse_jws(made.profile.text("record"), COMPANY_TYPE).unverified_claims
    if any(claims.get(name) != value for name, value in said.items()):
        raise ClientError(
            f"The profile {made.profile.folder} says something else of its company; repeat what you said before, or"
            " choose another name with --profile."
        )


def _read_token(file: Path) -> str:
    try:
        return str(field(parse_json(file.read_bytes()), "access_token"))
    except (MalformedInput, ApiError) as error:
        raise ClientError(
            f"{file} is not the answer to a request for a token; `company proof token` makes one."
        ) from error


def _load(profile: str) -> Company:
    loaded = common.load_profile(profile)
    return Company(loaded, common.reach(loaded.trust))


def _keep(found: Company, asked: Requested) -> str:
    folder = found.profile.folder / _ASKED
    folder.mkdir(mode=0o700, exist_ok=True)
    name = sha256(asked.request.encode()).hex()[:12]
    write_private(folder / name, dump_requested(asked))
    return name


def _kept(found: Company, name: str | None) -> Path:
    waiting = sorted(path.name for path in (found.profile.folder / _ASKED).glob("[0-9a-f]*"))
    if name is None and len(waiting) == 1:
        name = waiting[0]
    if name not in waiting:
        listed = ", ".join(waiting) or "none; run `twinvault company request` first"
        raise ClientError(f"Say which request to wait for. Waiting: {listed}.")
    return found.profile.folder / _ASKED / name


def _show(prepared: Prepared, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(prepared.curl)
        return
    said = {"method": prepared.method, "url": prepared.url, "headers": dict(prepared.headers), "body": prepared.body}
    common.emit(said, as_json=True)
