"""`serve` keeps the app's processes and the worker running, each with its own environment, and ends with all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import httpx
import pytest

from tests.waiting import until
from vault.ops.site import Site
from vault.ops.supervisor import Supervisor

pytestmark = pytest.mark.slow


@dataclass
class Service:
    """A started `twinvault serve`."""

    process: subprocess.Popen[bytes]
    url: str

    def child(self, role: str) -> int:
        """Return the process id of the only one of a role, once it runs."""
        return until(lambda: self.children().get(role), f"a {role} runs")[0]

    def apps(self) -> list[int]:
        """Return the process ids of the app, once both run."""
        return until(lambda: (found := self.children().get("app", [])) and len(found) == 2 and found, "both apps run")

    def children(self) -> dict[str, list[int]]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        roles: dict[str, list[int]] = {}
        for pid in map(int, found):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"-m" in command:
                roles.setdefault(command[command.index(b"-m") + 1].decode().removeprefix("vault."), []).append(pid)
        return roles

    def alive(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "twinvault", "serve", str(site.folder), "--port", str(port), "--processes", "2"]
    outer = {**os.environ, "VAULT_WORKER_KEYRING": "/from/the/shell", "A_SECRET_OF_THE_SHELL": "x"}
    process = subprocess.Popen(command, env=outer)
    running = Service(process, f"http://127.0.0.1:{port}")
    try:
        until(running.alive, "the service answers")
        yield running
    finally:
        children = running.children().values() if process.poll() is None else ()
        process.kill()
        process.wait()
        for pid in chain.from_iterable(children):
            with suppress(ProcessLookupError):  # it noticed by itself
                os.kill(pid, signal.SIGKILL)


def test_each_child_has_its_own_settings_and_nothing_of_its_sibling(service: Service, site: Site) -> None:
    (app, second), worker = map(environment_of, service.apps()), environment_of(service.child("worker"))
    keys = str(site.folder / "keys")
    assert {app.pop("VAULT_PLACE"), second.pop("VAULT_PLACE")} == {"0", "1"}
    assert app == second
    assert app["VAULT_APP_KEYRING"] == f"{keys}/app"
    assert worker["VAULT_WORKER_KEYRING"] == f"{keys}/worker"
    assert "VAULT_WORKER_KEYRING" not in app
    assert "VAULT_APP_KEYRING" not in worker
    assert not [value for value in app.values() if f"{keys}/worker" in value or f"{keys}/operator" in value]
    assert not [value for value in worker.values() if f"{keys}/app" in value or f"{keys}/operator" in value]
    assert not {"A_SECRET_OF_THE_SHELL"} & (app.keys() | worker.keys())


def test_a_killed_child_comes_back_and_the_others_stay(service: Service) -> None:
    (app, other), worker = service.apps(), service.child("worker")
    os.kill(app, signal.SIGKILL)
    until(lambda: (found := service.apps()) and app not in found and other in found, "the app comes back")
    until(service.alive, "the service answers")
    assert service.child("worker") == worker
    os.kill(worker, signal.SIGKILL)
    until(lambda: (found := service.children().get("worker")) and found != [worker], "the worker comes back")


@pytest.mark.parametrize("number", [0, 1])  # one of them sequences the log, either may
def test_one_process_serves_while_the_other_is_dead(number: int, service: Service) -> None:
    killed = service.apps()[number]
    os.kill(killed, signal.SIGKILL)
    until(lambda: gone(killed), "the killed process is gone")
    for _ in range(20):
        until(service.alive, "the service answers")


def test_a_port_in_use_is_refused_before_anything_starts(service: Service, site: Site) -> None:
    port = service.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "twinvault", "serve", str(site.folder), "--port", port], capture_output=True, check=False
    )
    assert second.returncode == 2
    assert b"in use. Stop what runs there" in b" ".join(second.stderr.replace("│".encode(), b" ").split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_it_stops_both(number: int, service: Service) -> None:
    children = [*service.apps(), service.child("worker")]
    service.process.send_signal(number)
    assert service.process.wait(30) == 0
    assert all(map(gone, children))
    assert not service.alive()


def test_who_kills_it_ends_both(service: Service) -> None:
    """Orphans would keep port and database, and nothing that the operator started would be left to stop them."""
    children = [*service.apps(), service.child("worker")]
    try:
        service.process.kill()
        service.process.wait()
        until(lambda: all(map(gone, children)), "the children notice that nobody supervises them")
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not service.alive()


@pytest.mark.parametrize("process", ["app", "worker"])
def test_a_process_that_refuses_to_start_says_why_in_one_sentence(process: str, site: Site) -> None:
    (site.folder / "keys" / process).chmod(0o755)
    settings = {**os.environ, **site.environment(process)}
    refused = subprocess.run([sys.executable, "-m", f"vault.{process}"], env=settings, capture_output=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == b"twinvault: Other users may read the keyring folder; set its mode to 0700.\n"


def test_a_child_that_always_fails_ends_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault.ops.supervisor._RESTART_S", 0.0)
    monkeypatch.setattr("vault.ops.supervisor._MAX_RESTARTS", 1)
    worker = {**site.environment("worker"), "VAULT_WORKER_KEYRING": str(site.folder / "missing")}
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert Supervisor({"worker": worker}).run() == 1
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
