"""What the commands share: options, prompts, progress, output."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twinvault.api import Api, ClientError
from twinvault.erasures import ErasedForGood
from twinvault.notice import plain
from twinvault.owner import Owner
from twinvault.profile import Profile, home, write_private
from twinvault.receipts import VerifiedAnswer
from vault.encoding import b64u, dump_json
from vault.errors import MalformedInput
from vault.proof.trust import TrustedRoot
from vault.schema.category import Category, Purpose, parse_category, parse_purpose
from vault.schema.language import Language
from vault.schema.question import BadQuestion, Candidate, NextChoice, Propensity, Question, QuestionKind, Recommend
from vault.schema.reader import Reader
from vault.schema.session import BOUNDS, Session, dump_session, parse_session
from vault.schema.trace import Period, parse_period
from vault.seal.errors import SealError
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId
from vault.seal.kit import parse_kit
from vault.seal.person import Role

T = TypeVar("T")

STDERR = Console(stderr=True)
CLOSING = ExitStack()

ProfileName = Annotated[str, typer.Option("--profile", help="Name of the local profile.", envvar="TWINVAULT_PROFILE")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
TrustFile = Annotated[Path, typer.Option("--trust", help="Trust file of the service: the keys to pin.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Read the passphrase from this file instead of asking.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: the notice was read and is agreed to.")]
Categories = Annotated[list[str], typer.Option("--category", help="Personal-data term; may be repeated.")]
PurposeTerm = Annotated[str, typer.Option("--purpose", help="DPV purpose that the answer serves.")]
TopN = Annotated[int, typer.Option("--top-n", help="How many codes to return.", min=1, max=20)]
Candidates = Annotated[
    list[str] | None,
    typer.Option("--candidate", help="CODE or CODE=TEXT to choose from; may be repeated. Without: any known code."),
]
AskedKind = Annotated[
    QuestionKind | None,
    typer.Option("--kind", help="Kind of question. Without: recommend if there are candidates, else next_choice."),
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--step",
        help="NAME=N, what your shop saw of the visit, for --kind propensity; may be repeated. What is left out is 0, "
        "page_value_milli unknown.",
    ),
]
Said = Annotated[
    Language | None,
    typer.Option("--language", help="Language of notices and receipts; the profile's own if not given."),
]
BundleFile = Annotated[Path | None, typer.Option("--bundle", help="Keep the answer's proof in this file.")]

DEFAULT_PROFILE = "default"
PURCHASE = "pd:Purchase"


def folder_of(name: str) -> Path:
    """Return the folder of a profile.

    Raises:
        ClientError: The name could lead elsewhere.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ClientError("A profile's name is a plain word, such as `home`.")
    return home() / name


def reach(trust: TrustedRoot) -> Api:
    """Return the way to the service; `main` closes it when the command ends."""
    api = Api(trust.issuer)
    CLOSING.callback(api.close)
    return api


def load_profile(name: str) -> Profile:
    """Return a profile by its name."""
    return Profile.load(folder_of(name))


def read_text(file: Path) -> str:
    """Return what a text file holds.

    Raises:
        ClientError: It holds something else than UTF-8.
    """
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ClientError(f"{file} is not UTF-8 text; check that it is the file you meant.") from error


def read_passphrase(file: Path | None, *, new: bool = False) -> str:
    """Return the passphrase from a file or a hidden prompt, never from the command line.

    Raises:
        ClientError: It is empty, or nobody is there to ask.
    """
    if file is not None:
        text = read_text(file).rstrip("\r\n")
    elif not sys.stdin.isatty():
        raise ClientError("Nobody is at the keyboard to type the passphrase; give it with --passphrase-file.")
    else:
        text = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True))
    if not text:
        raise ClientError("The passphrase is empty; choose a longer one.")
    return text


def unlock_owner(
    profile: str,
    passphrase_file: Path | None,
    kit: Path | None = None,
    language: Language | None = None,
    role: Role = Role.OWNER,
) -> Owner:
    """Open the profile's vault, by passphrase or by its recovery kit; `main` closes it when the command ends."""
    loaded = load_profile(profile)
    loaded.binary("device_secret", 16)  # another kind of profile is refused before anyone types a passphrase
    api = reach(loaded.trust)
    if kit is not None:
        found = Owner.unlock(loaded, kit=parse_kit(read_text(kit)), api=api)
    else:
        found = Owner.unlock(loaded, passphrase=read_passphrase(passphrase_file), api=api, role=role)
    CLOSING.callback(found.close)
    found.language = language or found.language
    return found


_AGREE: Final = {Language.EN: "Do you agree?", Language.FR: "Êtes-vous d'accord (y : oui, n : non) ?"}


def agree(notice: str, *, yes: bool, each: Iterable[str] = (), language: Language = Language.EN) -> None:
    """Show a notice and ask for agreement.

    Args:
        notice: The text.
        yes: It was agreed to beforehand; what is in `each` was then named by options of its own.
        each: Questions that need a yes of their own.
        language: Of the person who is asked.

    Raises:
        ClientError: It was not given, or nobody is there to ask.
    """
    STDERR.print(clean(notice), markup=False, highlight=False)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ClientError("Nobody is at the keyboard to agree; read the notice above and repeat with --yes.")
    for question in (_AGREE[language], *each):
        if not typer.confirm(question, err=True):
            raise ClientError("Nothing was signed.")


def require_writable(certificate: Path) -> None:
    """Refuse a certificate's file that cannot be written before anything is erased: later there is no second one.

    Raises:
        ClientError: It cannot be written.
    """
    if certificate.is_dir() or not os.access(certificate.parent, os.W_OK):
        raise ClientError(f"Nothing was erased. {certificate} cannot be written; name another file with --certificate.")


def keep_certificate(certificate: Path, done: ErasedForGood) -> None:
    """Write what proves an erasure into a file."""
    write_private(certificate, dump_json({"certificate": b64u(done.encoded), "proof": done.proof}))


def clean(text: str) -> str:
    """Return a text without what steers a terminal; its lines stay.

    Sentences, names and codes come from the service and from companies: they could repaint what this program said.
    """
    return "\n".join(plain(line) for line in text.split("\n"))


def emit(data: dict[str, Any], *, as_json: bool) -> None:
    """Write a result: one JSON object, or a line per field."""
    if as_json:
        typer.echo(json.dumps(data))  # in ASCII: a terminal obeys control characters of Unicode too
        return
    for name, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            typer.echo(f"{name}:")
            for item in value:
                typer.echo(clean("  " + "  ".join(f"{key}={_plain(part)}" for key, part in item.items())))
        else:
            typer.echo(clean(f"{name}: {_plain(value)}"))


def told(event: dict[str, Any]) -> str:
    """Return an event of the history as a person reads it: when, what, and the rules that refused it below."""
    at = event.get("at")
    when = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" if isinstance(at, int) else "-"
    because = [f"    {rule['sentence']} ({rule['rule']})" for rule in event.get("rules", [])]
    return clean("\n".join([f"{event['index']:>6}  {when}  {event['sentence']}", *because]))


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Any]:
    """Show a bar on standard error; yields what to call with each step's size."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=STDERR, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda size: bar.advance(task, size)


def parse_categories(texts: list[str], option: str = "--category") -> list[Category]:
    """Return categories of the closed set, or end with the usage status."""
    return [_term(parse_category, text, option) for text in texts]


def parse_purposes(texts: list[str], option: str = "--purpose") -> list[Purpose]:
    """Return purposes of the closed set, or end with the usage status."""
    return [_term(parse_purpose, text, option) for text in texts]


def parse_id_of(text: str, what: str, shown_by: str) -> bytes:
    """Return an id of 16 bytes, or end with the usage status."""
    try:
        return parse_id(text)
    except SealError as error:
        raise typer.BadParameter(f"{what} has 22 letters, digits, - or _; `{shown_by}` shows it.") from error


def parse_consent_id(text: str, shown_by: str = "owner consents") -> ConsentId:
    """Return a consent id, or end with the usage status."""
    return ConsentId(parse_id_of(text, "A consent id", shown_by))


def parse_month(text: str, option: str) -> Period:
    """Return a month, or end with the usage status."""
    return _term(parse_period, text, option)


def parse_zone(text: str) -> ZoneInfo:
    """Return a time zone, or end with the usage status."""
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError) as error:
        raise typer.BadParameter("A time zone is an IANA name, such as Europe/Berlin.") from error


def question_of(
    category: str,
    purpose: str,
    top_n: int,
    candidates: list[str] | None,
    *,
    kind: QuestionKind | None = None,
    steps: list[str] | None = None,
) -> Question:
    """Return the question that the options describe; without a kind, what they can only mean."""
    about = _term(parse_category, category, "--category")
    why = _term(parse_purpose, purpose, "--purpose")
    meant = kind or (QuestionKind.RECOMMEND if candidates else QuestionKind.NEXT_CHOICE)
    if steps and meant is not QuestionKind.PROPENSITY:
        raise typer.BadParameter("Steps of a visit go with --kind propensity.", param_hint="--step")
    match meant:
        case QuestionKind.NEXT_CHOICE if not candidates:
            return NextChoice(about, why, top_n)
        case QuestionKind.RECOMMEND if candidates:
            parts = [text.partition("=") for text in candidates]
            offered = tuple(Candidate(code, text) for code, _, text in parts)
            return Recommend(about, why, offered, min(top_n, len(parts)))
        case QuestionKind.PROPENSITY if not candidates:
            return Propensity(about, why, _session_of(steps or []))
        case QuestionKind.NEXT_CHOICE | QuestionKind.RECOMMEND | QuestionKind.PROPENSITY:
            raise typer.BadParameter("Candidates go with --kind recommend, and only with it.", param_hint="--candidate")
        case _:
            raise typer.BadParameter(
                f"{meant} questions are not asked here: next_choice, recommend or propensity.", param_hint="--kind"
            )


def _session_of(steps: list[str]) -> Session:
    said = dict(step.partition("=")[::2] for step in steps)
    if len(said) != len(steps):
        raise typer.BadParameter("A step of a visit is said twice.", param_hint="--step")
    if not {"month", "visitor"} <= said.keys():
        raise typer.BadParameter("Say at least month=1..12 and visitor=new|returning|other.", param_hint="--step")
    record = dump_session(Session())
    for name, text in said.items():
        if name not in record:
            raise typer.BadParameter(
                f"{name!r} is no step of a visit; these are: {', '.join(record)}.", param_hint="--step"
            )
        record[name] = int(text) if name in BOUNDS and re.fullmatch("-?[0-9]{1,12}", text) else text
    return parse_session(Reader(record, BadQuestion, "session"))


def _term(parse: Callable[[str], T], text: str, option: str) -> T:
    try:
        return parse(text)
    except MalformedInput as error:
        raise typer.BadParameter(error.detail, param_hint=option) from error


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={part}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def answer_json(answered: VerifiedAnswer, bundle: Path | None) -> dict[str, Any]:
    """Return a verified answer as output; keep its proof in a file if one is named."""
    if bundle is not None:
        write_private(bundle, answered.bundle)
    answer = answered.answer
    return {
        "predictions": [{"code": item.code, "score_ppm": item.score_ppm} for item in answer.predictions],
        "confidence": str(answer.confidence),
        "abstained": answer.abstained,
        "question_id": b64u(answer.question_id),
        "verified": True,
        "checked": answered.checked,
    }
