"""Telling the owner elsewhere that there is something to see: by e-mail, push or webhook, from the owner's own client.

The service tells nobody: whoever carries a message would read there which company asks about whom. So the client
sends, from where the key is, and by default how many things happened and nothing else. Nothing is sent at all until
the owner names a destination.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, assert_never

from twinvault.api import ClientError
from twinvault.profile import BadProfile, write_private
from vault.encoding import JsonObject, dump_json, parse_json
from vault.errors import MalformedInput
from vault.proof.leaf import LeafKind
from vault.schema.language import Language
from vault.schema.reader import Reader

FILE: Final = "destinations.json"
MAX_DESTINATIONS: Final = 8
_LOCK: Final = "destinations.lock"
_MAX_LINES: Final = 40
_MAX_ENDING: Final = 10_000
_ANSWERED_S: Final = 30.0
_URL = re.compile(r"[^\s\x00-\x1f\x7f]{1,2048}")

_QUIET: Final = frozenset({LeafKind.RING_HEAD, LeafKind.UPLOAD, LeafKind.HANDOVER, LeafKind.RESEAL, LeafKind.RELEASE})
"""What the owner's own devices and keys cause all day long; everything else is told, also what this client is too
old to know."""


class BadDestination(ClientError):
    """An address that nothing can be sent to, or not privately."""

    slug = "bad-destination"
    title = "Destination cannot be used"


class Undelivered(ClientError):
    """A message that its destination did not take; it is sent again next time."""

    slug = "undelivered"
    title = "Message was not delivered"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where messages go, and what was told there.

    Args:
        url: As apprise reads it. A secret: it holds passwords or tokens, and names its owner.
        details: Whether the events' sentences are sent, companies' names in them, or only their number.
        after: The last leaf index that was told, or passed over as quiet.
        ending: `consent/version` of each coming end that was told.
    """

    url: str
    details: bool
    after: int
    ending: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How it is called where others may read along: its kind, and a digest that tells two of a kind apart."""
        return f"{self.url.partition(':')[0]} ({hashlib.sha256(self.url.encode()).hexdigest()[:8]})"


class Destinations:
    """The destinations of one profile, in a file of its own that only this user may read.

    Args:
        folder: The profile's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> list[Destination]:
        """Return all destinations.

        Raises:
            BadProfile: The file is damaged.
        """
        path = self._folder / FILE
        if not path.exists():
            return []
        try:
            record = parse_json(path.read_bytes())
        except MalformedInput as error:
            raise BadProfile(f"The profile's {FILE} is damaged; remove it and add the destinations again.") from error
        return [
            _parse(item) for item in Reader(record, BadProfile, FILE).objects("destinations", at_most=MAX_DESTINATIONS)
        ]

    def add(self, url: str, *, details: bool, after: int, ending: Sequence[Mapping[str, Any]], said: Language) -> None:
        """Send a first message to a destination, and keep the destination if it is taken.

        Args:
            url: Where to.
            details: Whether to send sentences or only numbers.
            after: The newest leaf index: what was before is not told.
            ending: The coming ends known now; they are not told either.
            said: Language of the message.

        Raises:
            BadDestination: It cannot be used, is kept already, or there are too many.
            Undelivered: It did not take the message.
        """
        if _URL.fullmatch(url) is None:
            raise BadDestination("An address is one word of at most 2,048 characters, without spaces.")
        with self._locked():
            kept = self.read()
            if any(item.url == url for item in kept):
                raise BadDestination("This destination is kept already.")
            if len(kept) >= MAX_DESTINATIONS:
                raise BadDestination(f"There are {MAX_DESTINATIONS} destinations already; remove one first.")
            if not _send(url, _hello(said)):
                raise Undelivered("The destination did not take a first message; it is not kept. Check its address.")
            self._write([*kept, Destination(url, details, after, _ends(ending))])

    def remove(self, number: int) -> Destination:
        """Forget a destination and what it holds.

        Args:
            number: Its place in `read`, from 1.

        Raises:
            BadDestination: There is no such place.
        """
        with self._locked():
            kept = self.read()
            if not 1 <= number <= len(kept):
                raise BadDestination(f"There are {len(kept)} destinations; none has the number {number}.")
            gone = kept.pop(number - 1)
            self._write(kept)
        return gone

    def tell(
        self, events: Sequence[Mapping[str, Any]], ending: Sequence[Mapping[str, Any]], said: Language
    ) -> list[str]:
        """Tell each destination what it was not told yet, in one message.

        Args:
            events: The owner's history, from after the lowest `after` of all destinations.
            ending: The consents that end within a week.
            said: Language of the message.

        Returns:
            Names of the destinations that took a message.

        Raises:
            Undelivered: One or more did not; all others were told.

        Guarantees: what is told is remembered only after the destination took it. A crash in between tells it twice,
            nothing is left out, and of two clients at once one tells.
        """
        told, failed = [], []
        with self._locked():
            kept = self.read()
            for place, item in enumerate(kept):
                new, ends = _untold(item, events, ending)
                if new or ends:
                    if not _took(item.url, _message(new, ends, said, details=item.details)):
                        failed.append(item.name)
                        continue
                    told.append(item.name)
                seen = max([item.after, *(int(event["index"]) for event in events)])
                kept[place] = replace(item, after=seen, ending=_ends(ending))
                if kept[place] != item:
                    self._write(kept)
        if failed:
            raise Undelivered(f"Not taken, and sent again next time: {', '.join(failed)}.")
        return told

    def _write(self, kept: Sequence[Destination]) -> None:
        items: list[JsonObject] = [
            {"url": item.url, "details": int(item.details), "after": item.after, "ending": [*item.ending]}
            for item in kept
        ]
        write_private(self._folder / FILE, dump_json({"destinations": [*items]}))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock of its own: sending takes seconds, and nothing else of the profile waits for it."""
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _parse(r: Reader) -> Destination:
    item = Destination(
        url=r.text("url", _URL),
        details=r.flag("details"),
        after=r.integer("after", -1),
        ending=r.words("ending", str, at_most=_MAX_ENDING),
    )
    r.end()
    return item


def _end_of(ending: Mapping[str, Any]) -> str:
    return f"{ending['consent']}/{ending['version']}"


def _ends(ending: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({_end_of(end) for end in ending}))


def _untold(
    item: Destination, events: Sequence[Mapping[str, Any]], ending: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    new = [event for event in events if event["index"] > item.after and event["kind"] not in _QUIET]
    ends = [end for end in ending if _end_of(end) not in item.ending]
    return [str(event["sentence"]) for event in new], [str(end["sentence"]) for end in ends]


def _hello(said: Language) -> str:
    match said:
        case Language.EN:
            return "This address is told from now on when something happened in your vault."
        case Language.FR:
            return "Cette adresse saura désormais quand quelque chose se passe dans votre coffre."
        case _:
            assert_never(said)


def _message(new: Sequence[str], ends: Sequence[str], said: Language, *, details: bool) -> str:
    """Return how much happened; with details what, as far as a message goes."""
    match said:
        case Language.EN:
            count = f"New in your vault: {len(new)}. Consents that end within a week: {len(ends)}."
            more, read = "and {} more", "Read it with: twinvault owner notices"
        case Language.FR:
            count = (
                f"Nouveau dans votre coffre : {len(new)}. Consentements qui expirent sous une semaine : {len(ends)}."
            )
            more, read = "et {} de plus", "À lire avec : twinvault owner notices"
        case _:
            assert_never(said)
    if not details:
        return f"{count}\n{read}"
    lines = [*ends, *new]
    rest = len(lines) - _MAX_LINES
    return "\n".join([count, *lines[:_MAX_LINES], *([more.format(rest)] if rest > 0 else []), read])


def _took(url: str, text: str) -> bool:
    """Send a message to a destination that is kept: one that cannot be used any more keeps nobody from being told."""
    try:
        return _send(url, text)
    except BadDestination:
        return False


def _send(url: str, text: str) -> bool:
    """Send a message; False if its destination did not take it in time.

    Raises:
        BadDestination: The library does not know such an address, or it would go there in the clear.
    """
    apprise = _library()
    # No redirects: a message goes where its owner said. No image and no address of the library's makers in it.
    asset = apprise.AppriseAsset(
        app_id="TwinVault",
        app_desc="TwinVault",
        app_url="",
        theme="",
        async_mode=False,
        http_redirects=False,
        pgp_autogen=False,
        pem_autogen=False,
        storage_mode="memory",
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        raise BadDestination(
            "This is no address that apprise knows, such as mailtos://user:password@mail.example.org or ntfys://topic."
        )
    if _in_the_clear(service, url):
        raise BadDestination("This address sends in the clear; take the same with an s: mailtos, jsons, ntfys.")
    carrier = apprise.Apprise(asset=asset)
    carrier.add(service)
    return _in_time(lambda: bool(carrier.notify(text, title="TwinVault", body_format=apprise.NotifyFormat.TEXT)))


def _in_time(sent: Callable[[], bool]) -> bool:
    """Send, and wait no longer than for an answer that comes: the library's own limit begins anew with every byte."""
    answers: SimpleQueue[bool] = SimpleQueue()

    def send() -> None:
        try:
            answers.put(sent())
        except Exception:  # noqa: BLE001  whatever a plugin of the library raises may quote the address
            answers.put(False)

    Thread(target=send, daemon=True).start()
    try:
        return answers.get(timeout=_ANSWERED_S)
    except Empty:
        return False


def _in_the_clear(service: Any, url: str) -> bool:
    """Say whether a password or the message would cross a network that others read."""
    schema = url.partition(":")[0].lower()
    if service.secure or not service.host or schema not in _names(type(service).protocol):
        return False
    return not _is_loopback(str(getattr(service, "smtp_host", "") or service.host))


def _names(protocol: Any) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else tuple(protocol or ())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _library() -> Any:
    """Load apprise and keep it from logging: its warnings name hosts, users and what a server said.

    Raises:
        BadDestination: It is not installed.
    """
    try:
        apprise = import_module("apprise")
    except ModuleNotFoundError as error:
        raise BadDestination('Sending needs another package. Run: pip install "twinvault[notify]"') from error
    logging.getLogger("apprise").disabled = True
    return apprise
