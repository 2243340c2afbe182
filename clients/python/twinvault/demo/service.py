"""The demo's own installation: a fresh folder, a free port, and the processes that it starts and ends by their ids."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

import httpx

from twinvault.api import ClientError
from twinvault.profile import read_trust
from vault.proof.trust import TrustedRoot

_HOST: Final = "127.0.0.1"
_READY_S: Final = 60.0
_STOP_S: Final = 30.0
_COMMAND_S: Final = 300.0
_IMPORTED: Final = ("vault.app", "vault.worker")


class DemoFailed(ClientError):
    """A part of the story did not do what it must."""

    slug = "demo-failed"
    title = "The demo failed"


class Service:
    """One installation in a folder of its own; use it as a context, it ends what it started.

    Args:
        folder: Must not exist; holds installation and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.logs = folder / "logs"
        self.url = f"http://{_HOST}:{_free_port()}"
        self._serve: subprocess.Popen[bytes] | None = None
        self._compiling: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Make keys and databases, start the service and wait until it answers."""
        self.logs.mkdir(mode=0o700, parents=True)
        try:
            self._compile_ahead()
            where = ("--issuer", self.url, "--log-origin", "demo.example/log")
            self.command("operator", "init", str(self.site), *where)
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the service."""
        self.stop()

    @property
    def trust_file(self) -> Path:
        """What owners, companies and auditors pin."""
        return self.site / "trust.json"

    def trust(self) -> TrustedRoot:
        """Return the keys to pin."""
        return read_trust(self.trust_file)

    def operator(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> Any:
        """Run an operator's command on this installation and return its JSON; see `command`."""
        return self.command("operator", *arguments, "--site", str(self.site), allowed=allowed)

    def command(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> Any:
        """Run a `twinvault` command and return the JSON that it prints.

        Args:
            arguments: Without `--json`.
            allowed: Exit statuses that are no failure.

        Raises:
            DemoFailed: It ended with another status.
        """
        try:
            with (self.logs / "commands.log").open("ab") as log:
                done = subprocess.run(  # noqa: S603  (our own module by name)
                    [*twinvault_command(), *arguments, "--json"], stdout=subprocess.PIPE, stderr=log, check=False,
                    timeout=_COMMAND_S, env=_environment(),
                )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(
                f"`twinvault {' '.join(arguments[:2])}` took longer than {_COMMAND_S:.0f} seconds."
            ) from error
        if done.returncode not in allowed:
            raise DemoFailed(f"`twinvault {' '.join(arguments[:2])}` ended with status {done.returncode}.")
        return json.loads(done.stdout or b"{}")

    def wait(self) -> int:
        """Wait until the service ends by itself."""
        return self._serve.wait() if self._serve else 0

    def stop(self) -> None:
        """End the service: only processes that this object started, which end their own children."""
        if self._compiling is not None:
            self._compiling.kill()
            self._compiling.wait()
            self._compiling = None
        if self._serve is None:
            return
        self._serve.send_signal(signal.SIGTERM)
        try:
            self._serve.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._serve.pid, signal.SIGKILL)  # the group that this object's own session made
            self._serve.wait()
        self._serve = None

    def _compile_ahead(self) -> None:
        """Let another processor compile what the app imports, while keys are made, where nobody imported it before."""
        if (os.cpu_count() or 1) > 1 and _never_imported("torch"):
            self._compiling = subprocess.Popen(  # noqa: S603  (our own modules by name)
                [sys.executable, "-c", f"import {', '.join(_IMPORTED)}"], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment(),
            )  # fmt: skip

    def _start(self) -> None:
        port = self.url.rpartition(":")[2]
        with (self.logs / "serve.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends the service in order.
            # One process of the app: on a small machine the demo's own clients need the rest.
            self._serve = subprocess.Popen(  # noqa: S603  (our own module by name)
                [*twinvault_command(), "serve", str(self.site), "--host", _HOST, "--port", port, "--processes", "1"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=_environment(),
            )  # fmt: skip
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self._serve.poll() is not None:
                raise DemoFailed("The service ended while it started.")
            try:
                if httpx.get(f"{self.url}/readyz").is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise DemoFailed(f"The service did not answer within {_READY_S:.0f} seconds.")


def _never_imported(package: str) -> bool:
    """Say whether Python has not compiled a package yet, and would keep it once it has."""
    found = importlib.util.find_spec(package)
    if sys.dont_write_bytecode or found is None or found.origin is None:
        return False
    return not Path(importlib.util.cache_from_source(found.origin)).exists()


def twinvault_command() -> list[str]:
    """Return how `twinvault` is started from anywhere: its environment is on nobody's PATH after `make run`."""
    return [sys.executable, "-m", "twinvault"]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
