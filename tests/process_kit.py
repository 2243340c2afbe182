"""The app as the operator runs it, in a process of its own, with a house of clients around it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from tests.client_kit import Service
from tests.http_kit import Caller, House, answer_path
from tests.site_kit import working
from tests.waiting import until
from twinvault.profile import read_trust
from vault.clock import SystemClock
from vault.ops.site import Site, set_up

_NONCE_S = 30.0


@dataclass
class Process:
    """The app in its own process and its own environment."""

    site: Site
    port: int
    log: Path
    environment: Mapping[str, str]
    child: subprocess.Popen[bytes] | None = field(default=None)
    module: str = "vault.app"

    def start(self) -> None:
        self.launch()
        until(self._ready, "the app starts")

    def launch(self) -> None:
        """Start it without waiting until it answers."""
        environment = {**os.environ, **self.site.environment("app"), "VAULT_PORT": str(self.port), **self.environment}
        with self.log.open("ab") as file:
            self.child = subprocess.Popen([sys.executable, "-m", self.module], env=environment, stderr=file)

    def _ready(self) -> bool:
        assert self.child is not None
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx.HTTPError:
            assert self.child.poll() is None, self.log.read_text()[-2000:]
            return False

    def kill(self) -> None:
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(30)


@dataclass
class App:
    """Enough of an app's state for the house's helpers."""

    state: Any


@contextmanager
def app_process(
    folder: Path,
    database_url: str | None = None,
    shortkeys_url: str | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[Process, House]]:
    """Set a site up and run the app on it as a child process, with a worker at hand."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    site = Site(folder / "site")
    set_up(site, issuer=url, log_origin="test.example/log", database_url=database_url, shortkeys_url=shortkeys_url, now=SystemClock().now())  # fmt: skip
    running = Process(site, port, folder / "app.log", environment)
    running.start()
    database, shortkeys = site.databases()
    state = type("State", (), {"database": database, "shortkeys": shortkeys})
    service = Service(site, App(state), read_trust(site.trust_file), url)  # type: ignore[arg-type]  # no app in this process
    try:
        with working(site) as work, closing(House(service, folder, work)) as house:
            yield running, house
    finally:
        if running.child is not None and running.child.poll() is None:
            running.kill()
        database.close()
        shortkeys.close()


@dataclass
class RemoteCaller(Caller):
    """A company that learns the server's nonce as any client does: from a refusal."""

    _nonce: str = ""
    _until: float = 0.0

    @property
    def nonce(self) -> str:
        if time.monotonic() >= self._until:
            refused = self.house.http.put(answer_path(bytes(16), bytes(16)), content=b"{}")
            self._nonce, self._until = refused.headers["DPoP-Nonce"], time.monotonic() + _NONCE_S
        return self._nonce
