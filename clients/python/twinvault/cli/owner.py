"""`twinvault owner`: your vault."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from twinvault.cli import common
from twinvault.cli.common import (
    DEFAULT_PROFILE,
    PURCHASE,
    AsJson,
    BundleFile,
    PassphraseFile,
    ProfileName,
    TrustFile,
    Yes,
)
from twinvault.closing import Closing
from twinvault.importers import Import, open_import
from twinvault.owner import Owner
from twinvault.profile import read_trust, write_private
from twinvault.terms import OWN_PURPOSE
from vault.encoding import b64u
from vault.schema.category import is_special
from vault.schema.language import Language
from vault.schema.terms import ConsentKind
from vault.schema.trace import Trace, local_date
from vault.seal.ids import DeviceId
from vault.seal.kit import dump_kit, new_kit, parse_kit
from vault.seal.person import Profile as Person
from vault.seal.slot import new_device_secret

owner = typer.Typer(no_args_is_help=True, help="Your vault: seal traces, decide who may ask, see who asked what.")

Zone = Annotated[str, typer.Option("--time-zone", help="IANA name; decides the local date of every trace, for good.")]
KitFile = Annotated[Path | None, typer.Option("--kit", help="Recovery kit, as printed by `owner init`.")]


@owner.command()
def init(
    *,
    trust: TrustFile,
    profile: ProfileName = DEFAULT_PROFILE,
    time_zone: Zone = "UTC",
    category: common.Categories = [PURCHASE],  # noqa: B006  (Typer copies its defaults)
    passphrase_file: PassphraseFile = None,
    kit_file: Annotated[
        Path | None, typer.Option("--kit-file", help="Write the recovery kit here, not to the screen.")
    ] = None,
    language: common.Said = None,
    twin: Annotated[bool, typer.Option("--twin/--no-twin", help="Give the self consent that keeps your twin.")] = True,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Begin a vault; prints the recovery kit once: keep it on paper."""
    categories = common.parse_categories(category)
    common.parse_zone(time_zone)
    if twin and all(map(is_special, categories)):  # said before there is a vault, so that its kit is not lost on it
        each = "".join(f" --category {one} --special {one}" for one in sorted(categories))
        raise typer.BadParameter(
            "All that is named is specially protected and needs your explicit opt-in: begin with --no-twin, then run"
            f" `twinvault owner give --kind self{each}`."
        )
    passphrase = common.read_passphrase(passphrase_file, new=True)
    pinned = read_trust(trust)
    made, kit = Owner.init(
        common.folder_of(profile), pinned, passphrase=passphrase, categories=categories, time_zone=time_zone,
        language=language or Language.EN, api=common.reach(pinned),
    )  # fmt: skip
    common.CLOSING.callback(made.close)
    text = dump_kit(kit)
    if kit_file is not None:
        write_private(kit_file, text.encode())
    elif not as_json:
        typer.echo(text)
    result: dict[str, Any] = {"vault": b64u(made.vault), "profile": str(made.profile.folder)}
    if kit_file is None and as_json:
        result["kit"] = text
    if twin:
        terms = made.terms_for(ConsentKind.SELF, categories)
        common.agree(made.notice(terms), yes=yes, language=made.language)
        result["consent"] = b64u(made.give(terms).version.consent_id)
    common.emit(result, as_json=as_json)


@owner.command()
def unlock(
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    kit: KitFile = None,
    trust: Annotated[Path | None, typer.Option("--trust", help="With --kit: bring the vault to this machine.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that the vault opens; with --kit and --trust, bring it to this machine from the recovery kit."""
    if trust is not None and kit is None:
        raise typer.BadParameter("A vault is brought here by its recovery kit: --trust goes with --kit.")
    if kit is not None and trust is not None:
        pinned = read_trust(trust)
        code = parse_kit(common.read_text(kit))
        found = Owner.recover(common.folder_of(profile), pinned, code, api=common.reach(pinned))
        common.CLOSING.callback(found.close)
    else:
        found = common.unlock_owner(profile, passphrase_file, kit)
    common.emit({"vault": b64u(found.vault), "profile": str(found.profile.folder)}, as_json=as_json)


@owner.command()
def succeed(
    *,
    kit: Annotated[Path, typer.Option("--kit", help="The recovery kit made last, as printed.")],
    kit_file: Annotated[
        Path,
        typer.Option("--kit-file", help="Write the new recovery kit here first; after an interruption, name it again."),
    ],
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    restored: Annotated[
        bool,
        typer.Option("--restored", help="The service was set back: take over the ring as the former key signed it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replace your owner key, which may be stolen, by the one in your recovery kit; makes a new kit and passphrase.

    Sessions, passphrases and kits from before end. Interrupted anywhere, run it again as it was.
    """
    loaded = common.load_profile(profile)
    loaded.binary("device_secret", 16)
    code = parse_kit(common.read_text(kit))
    passphrase = common.read_passphrase(passphrase_file, new=True)
    if not kit_file.exists():
        write_private(kit_file, dump_kit(new_kit(new_device_secret())).encode())
    made = parse_kit(common.read_text(kit_file))
    found = Owner.succeed(loaded, code, made, passphrase=passphrase, restored=restored, api=common.reach(loaded.trust))
    common.CLOSING.callback(found.close)
    live = [b64u(device.id) for device in found.devices() if device.accepted is None]
    result = {"vault": b64u(found.vault), "profile": str(loaded.folder), "kit_file": str(kit_file), "devices": live}
    common.emit(result, as_json=as_json)


@owner.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="What to import; its format is found out.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the file holds; needs no vault.")] = False,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", help="With --dry-run: where times without a zone were taken; UTC if not given."),
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Seal a file's traces into the vault."""
    if time_zone is not None and not dry_run:
        raise typer.BadParameter("The vault's own time zone decides: --time-zone goes with --dry-run.")
    found = None if dry_run else common.unlock_owner(profile, passphrase_file)
    zone = common.parse_zone(time_zone or "UTC" if found is None else found.profile.text("time_zone"))
    reading = open_import(file, zone)
    counted = _Counted(reading)
    with common.progress("Reading" if found is None else "Sealing") as step:
        if found is None:
            for _ in counted.traces():
                step(1)
            sent: dict[str, Any] = {}
        else:
            flushed = found.import_traces(counted.traces(), step)
            sent = {"sent": flushed.sent, "waiting": flushed.waiting}
    common.emit({**counted.report(zone), **sent}, as_json=as_json)


@owner.command()
def status(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Say what the twin knows, what it cost, and what waits to be sent."""
    found = common.unlock_owner(profile, passphrase_file)
    live = sum(consent.live for consent in found.consents())
    twin = found.twin()
    said = {"live_consents": live, "frozen": found.frozen(), "waiting": found.device.waiting}
    zone = common.parse_zone(found.profile.text("time_zone"))
    common.emit({**said, **({"twin": twin} if as_json else _known(twin, zone))}, as_json=as_json)


@owner.command()
def refresh(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Ask the worker for rows of the days that are closed; this spends privacy budget, and what comes later is late."""
    found = common.unlock_owner(profile, passphrase_file)
    common.emit({"job": found.refresh(), "days_to": found.closing().closed.isoformat()}, as_json=as_json)


@owner.command()
def freeze(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Stop everything at once: no answer, no refresh, no training, whatever was consented, until `unfreeze`."""
    _freeze(common.unlock_owner(profile, passphrase_file), frozen=True, as_json=as_json)


@owner.command("person")
def person_of(
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    minor: Annotated[bool | None, typer.Option("--minor/--adult", help="Under the age of consenting alone.")] = None,
    guardian: Annotated[
        bool | None, typer.Option("--guardian/--no-guardian", help="A guardian agreed to what is consented.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the rules go by about you, as the service keeps it; with options, sign and log what you say here."""
    if minor is None and guardian is not None:
        raise typer.BadParameter(
            "Say --minor or --adult too: you sign what you say here, and nothing that the service says."
        )
    found = common.unlock_owner(profile, passphrase_file)
    person = found.person() if minor is None else Person(minor, bool(guardian))
    if minor is not None:
        found.declare(person)
    common.emit({"vault": b64u(found.vault), **asdict(person)}, as_json=as_json)


@owner.command()
def unfreeze(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Let everything that is consented happen again."""
    _freeze(common.unlock_owner(profile, passphrase_file), frozen=False, as_json=as_json)


@owner.command()
def devices(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """List the devices that may seal traces to the vault, revoked ones included."""
    found = common.unlock_owner(profile, passphrase_file)
    listed = [
        {
            "device": b64u(device.id),
            "role": str(device.role),
            "revoked": device.accepted is not None,
            "this_machine": device.id == found.device.id,
        }
        for device in found.devices()
    ]
    common.emit({"devices": listed}, as_json=as_json)


@owner.command("revoke-device")
def revoke_device(
    device: Annotated[str, typer.Argument(help="The device's id, from `owner devices`.")],
    *,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Even while it goes on sending, as a thief may make it do.")
    ] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """End a lost or stolen device for good; what it was acknowledged for stays, nothing after it counts."""
    device_id = DeviceId(common.parse_id_of(device, "A device id", "owner devices"))
    revoked = common.unlock_owner(profile, passphrase_file).revoke_device(device_id, at_once=at_once)
    common.emit({"device": device, "revoked": True, "chains_kept": len(revoked.accepted or {})}, as_json=as_json)


@owner.command()
def ask(
    *,
    category: Annotated[str, typer.Option("--category", help="About what.")] = PURCHASE,
    purpose: common.PurposeTerm = OWN_PURPOSE,
    top_n: common.TopN = 5,
    candidate: common.Candidates = None,
    bundle: BundleFile = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask your own twin."""
    question = common.question_of(category, purpose, top_n, candidate)
    answered = common.unlock_owner(profile, passphrase_file).ask(question)
    common.emit(common.answer_json(answered, bundle), as_json=as_json)


@owner.command()
def history(
    *,
    after: Annotated[int, typer.Option("--after", help="Only events after this index.", min=-1)] = -1,
    consent: Annotated[str | None, typer.Option("--consent", help="Only what happened under this consent.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Show who asked what and what was decided, with the rule; and which consents end within a week.

    A line an event; with --json also what each proves: its leaf, its salts and both openings.
    """
    only = None if consent is None else b64u(common.parse_consent_id(consent))
    found = common.unlock_owner(profile, passphrase_file)
    events = [event for event in found.history(after) if only in (None, event["personal"].get("consent"))]
    ending = [one for one in found.ending() if only in (None, one["consent"])]
    if as_json:
        common.emit({"history": events, "ending": ending}, as_json=True)
        return
    for event in events:
        typer.echo(common.told(event))
    if ending:
        common.emit({"ending": ending}, as_json=False)


def _known(twin: Any, zone: ZoneInfo) -> dict[str, Any]:
    """Return of a twin what a person reads: how the last refresh went, what is known, what closes next, what a day cost."""
    months: dict[str, set[str]] = {}
    for row in twin["releases"]:
        months.setdefault(row["category"], set()).add(row["period"])
    job, closing = twin["job"] or {"state": "none yet", "reason": ""}, Closing.of(twin["freshness"])
    return {
        "last_refresh": " ".join(filter(None, (job["state"], job["reason"]))),
        "known": [
            {"category": category, "from": min(periods), "to": max(periods), "months": len(periods)}
            for category, periods in sorted(months.items())
        ],
        "closes_next": f"days up to {closing.following} at {closing.at.astimezone(zone):%Y-%m-%d %H:%M}",
        "epsilon_of_a_day_at_most": round(max((month["day"] for month in twin["spending"]), default=0.0), 2),
    }


class _Counted:
    """Counts what an import yields while it passes through."""

    def __init__(self, reading: Import) -> None:
        self._reading = reading
        self._count = 0
        self._categories: Counter[str] = Counter()
        self._first: Trace | None = None
        self._last: Trace | None = None

    def traces(self) -> Any:
        for trace in self._reading:
            self._count += 1
            self._categories[trace.category] += 1
            if self._first is None or trace.occurred_at < self._first.occurred_at:
                self._first = trace
            if self._last is None or trace.occurred_at > self._last.occurred_at:
                self._last = trace
            yield trace

    def report(self, zone: Any) -> dict[str, Any]:
        def day(trace: Trace | None) -> str | None:
            found: date | None = None if trace is None else local_date(trace.occurred_at, zone)
            return None if found is None else found.isoformat()

        return {
            "format": self._reading.format,
            "rows_read": self._reading.rows_read,
            "traces": self._count,
            "rejected": self._reading.rejected,
            "reasons": dict(self._reading.reasons),
            "from": day(self._first),
            "to": day(self._last),
            "categories": dict(self._categories),
        }


def _freeze(found: Owner, *, frozen: bool, as_json: bool) -> None:
    found.freeze(frozen=frozen)
    common.emit({"vault": b64u(found.vault), "frozen": frozen}, as_json=as_json)
