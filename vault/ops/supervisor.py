"""Starting the processes, each by module name and with an environment of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from vault.http.shares import listen, shared_counts
from vault.logging import configure_logging
from vault.ops.site import Site

_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "VAULT_LOG_LEVEL")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_RESTART_S = 1.0  # doubled at each restart of the same process
_LONGEST_S: Final = 60.0
_MAX_RESTARTS = 5
_STEADY_S = 300.0  # a child that ran for so long has not failed to start
_STOP_S = 15.0
_LISTENER = "VAULT_LISTENER"
_COUNTS = "VAULT_CONNECTION_COUNTS"
_SUPERVISOR = "VAULT_SUPERVISOR"

_log = structlog.get_logger()

serve = typer.Typer(add_completion=False)
worker = typer.Typer(add_completion=False)

SiteFolder = Annotated[Path, typer.Argument(help="Folder made by `twinvault operator init`.")]


@serve.command()
def serve_command(
    site: SiteFolder,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(help="Port to listen on; the issuer URL must lead here. 0 for any free one.", min=0, max=65535),
    ] = 8400,
    with_worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Start the worker beside the app.")] = True,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many processes the app has.")] = min(
        2, os.cpu_count() or 1
    ),
) -> None:
    """Run the service: the web-facing app and, unless it runs elsewhere, the worker."""
    found = Site(site)
    found.require_databases()
    with _listen(host, port) as listener:
        children = app_children(found.environment("app"), listener, processes)
        if with_worker:
            children["worker"] = found.environment("worker")
        raise typer.Exit(Supervisor(children).run())


def app_children(settings: Mapping[str, str], listener: socket.socket, processes: int) -> dict[str, Mapping[str, str]]:
    """Return the settings of each process of the app; all accept from one socket and share one database."""
    host, port = listener.getsockname()[:2]
    shared = {_LISTENER: str(listener.fileno()), _COUNTS: str(shared_counts(processes))}
    app = {**settings, "VAULT_HOST": host, "VAULT_PORT": str(port), **shared}
    return {f"app-{place + 1}": {**app, "VAULT_PLACE": str(place)} for place in range(processes)}


def inherited(settings: Mapping[str, str]) -> tuple[int, ...]:
    """Return the file descriptors that a process with these settings is to inherit."""
    return tuple(int(settings[name]) for name in (_LISTENER, _COUNTS, _SUPERVISOR) if name in settings)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds the address once more
        raise typer.BadParameter(
            f"Nothing can listen on {host} port {port}: {why}. Stop what runs there or name another."
        ) from error


@worker.command()
def worker_command(site: SiteFolder) -> None:
    """Run a worker: it alone opens traces, under live self and cohort consents."""
    found = Site(site)
    found.require_databases("worker")
    raise typer.Exit(Supervisor({"worker": found.environment("worker")}).run())


class Supervisor:
    """Keeps child processes running until it is told to stop.

    Args:
        children: Settings by process; `app-1`, `app-2` ... run `vault.app`, `worker` runs `vault.worker`.

    Guarantees: a child's environment holds its own settings and nothing of its sibling's; a worker that does not
        start never ends the app, nor one process of the app the other. When this process is killed, they end too.
    """

    def __init__(self, children: Mapping[str, Mapping[str, str]]) -> None:
        self._children = children
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started_s: dict[str, float] = {}
        self._restarts = dict.fromkeys(children, 0)
        self._due_s: dict[str, float] = {}
        apps = [role for role in children if role != "worker"]
        self._needed = apps or list(children)
        self._stopping = False
        self._lifeline: dict[str, str] = {}

    def run(self) -> int:
        """Start the children and watch them; return the exit status."""
        configure_logging()
        read, self._held = os.pipe()  # the kernel closes what is held, however this process ends
        self._lifeline = {_SUPERVISOR: str(read)}
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: setattr(self, "_stopping", True))
        for role in self._children:
            self._start(role)
        status = 0
        while not self._stopping and status == 0:
            time.sleep(0.1)
            status = self._watch()
        self._stop()
        return status

    def _start(self, role: str) -> None:
        base = {name: os.environ[name] for name in _KEPT if name in os.environ}
        module = f"vault.{role.partition('-')[0]}"
        settings = {**self._children[role], **self._lifeline}
        self._started_s[role] = time.monotonic()
        self._running[role] = subprocess.Popen(  # noqa: S603  (our own module by name)
            [sys.executable, "-m", module],
            env={**base, **_ONE_THREAD, **settings},
            pass_fds=inherited(settings),
        )

    def _watch(self) -> int:
        """Note who has ended and start them again when their time has come; 1 if nothing that is needed stays up."""
        now_s = time.monotonic()
        for role, child in list(self._running.items()):
            if child.poll() is not None:
                del self._running[role]
                self._note_end(role, child.returncode, now_s)
        if all(self._restarts[role] > _MAX_RESTARTS for role in self._needed):
            return 1
        for role in [role for role, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[role]
            self._start(role)
        return 0

    def _note_end(self, role: str, status: int, now_s: float) -> None:
        steady = now_s - self._started_s[role] > _STEADY_S
        self._restarts[role] = 1 if steady else self._restarts[role] + 1
        _log.error("child.ended", role=role, status=status, attempt=self._restarts[role])
        self._due_s[role] = now_s + min(_LONGEST_S, _RESTART_S * 2 ** (self._restarts[role] - 1))

    def _stop(self) -> None:
        for child in self._running.values():
            child.terminate()
        deadline = time.monotonic() + _STOP_S
        for child in self._running.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
