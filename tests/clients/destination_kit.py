"""A webhook and a mailbox on loopback, and what owners' destinations are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twinvault.destinations import Destinations
from vault.schema.language import Language

SECRET = "t0psecret"
COMPANY = "Acme Biscuits"


def event(index: int, kind: str = "answer") -> dict[str, Any]:
    return {"index": index, "kind": kind, "sentence": f"{COMPANY} asked question {index}."}


def end(version: int = 1) -> dict[str, Any]:
    sentence = f"{COMPANY}: your consent ends on 2026-12-01 unless you renew it."
    return {"consent": "A" * 22, "version": version, "ends_at": 1, "sentence": sentence}


@dataclass
class Webhook:
    """An HTTP endpoint that keeps what it was sent; what it answers is up to the test."""

    received: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    crash: Any = None
    answer: Any = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"json://owner:{SECRET}@127.0.0.1:{self.port}/{SECRET}"

    @property
    def texts(self) -> list[str]:
        return [item["message"] for item in self.received]


@contextmanager
def listening() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hook.paths.append(self.path)
            if hook.crash is not None:
                hook.crash(body)
                return
            if hook.status < 300:
                hook.received.append(body)
            if hook.answer is not None:
                hook.answer(self)
                return
            self.send_response(hook.status)
            self.send_header("location", f"http://127.0.0.1:{hook.port}/elsewhere")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()


class Mailbox:
    """A mail server's handler that keeps each message."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  (aiosmtpd's name)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 kept"


def add(kept: Destinations, url: str, *, details: bool = False, after: int = -1) -> None:
    kept.add(url, details=details, after=after, ending=[], said=Language.EN)


def tell(kept: Destinations, *events: dict[str, Any], ending: Any = (), said: Language = Language.EN) -> list[str]:
    return kept.tell(events, ending, said)
