"""The app for `benchmarks.answer`: in processes as `serve` starts them, its clock shifted, with a bare route beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from vault.http.shares import listen
from vault.ops.site import Site
from vault.ops.supervisor import app_children, inherited

ROOT = Path(__file__).parents[1]

# The world of the kits stands at one moment, so the server's clock is set to run from there.
_SERVER = """
import sys
from datetime import timedelta
from fastapi import Request, Response
from vault.app import create_app, run
from vault.clock import SystemClock
from vault.http.edge import RawBody
from vault.logging import configure_logging
from vault.settings import AppSettings

class Shifted(SystemClock):
    def now(self):
        return super().now() + timedelta(seconds=int(sys.argv[1]))

settings = AppSettings()
configure_logging(settings.log_level)
app = create_app(settings, Shifted())

@app.put("/bare/{consent}/{question}")
def bare(consent: str, question: str, body: RawBody) -> Response:
    return Response(b"x" * int(sys.argv[2]), media_type="application/x-ndjson")

run(app, settings)
"""


def start(site: Site, shift_s: int, port: int, answer_bytes: int, processes: int) -> list[subprocess.Popen[bytes]]:
    """Start the server's processes as `serve` does and wait until each of them serves."""
    command = [sys.executable, "-c", _SERVER, str(shift_s), str(answer_bytes)]
    started = []
    with listen("127.0.0.1", port) as listener:
        for name, settings in app_children(site.environment("app"), listener, processes).items():
            environment = {**os.environ, **settings, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            with (site.folder / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=environment, stdout=log, stderr=log, pass_fds=inherited(settings)
                    )
                )
        for process in started:
            _await_accepting(process, listener.fileno())
    return started


def _await_accepting(process: subprocess.Popen[bytes], listener: int) -> None:
    """Wait until the process polls the socket that all of them inherit."""
    for _ in range(600):
        with suppress(FileNotFoundError):  # a file of the process that was closed meanwhile
            for file in Path(f"/proc/{process.pid}/fdinfo").iterdir():
                if re.search(rf"^tfd: +{listener} ", file.read_text(), re.MULTILINE):
                    return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")
