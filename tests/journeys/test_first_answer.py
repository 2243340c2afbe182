"""The guide to a company's first answer, run as it stands: every block, in its order, against a served site."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "first-answer.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
# What the owner and a browser do while the Python of the guide waits; the guide shows these lines in its step 4.
WHILE_PYTHON_WAITS = """
python3 first_answer.py > told &
PYTHON=$!
until grep -q '^url: ' told; do sleep 0.2; kill -0 $PYTHON; done
URL=$(sed -n 's/^url: //p' told)
CODE=$(curl -sS -c cookies "$URL" | sed -n 's/.*<code>\\(.*\\)<\\/code>.*/\\1/p')
twinvault owner approve "$CODE" --passphrase-file passphrase --yes
BACK=$(curl -sS -b cookies -o /dev/null -w '%{redirect_url}' "$URL")
curl -sS --retry 60 --retry-delay 1 --retry-connrefused "$BACK"
wait $PYTHON
cat told
"""


def test_the_guide_has_a_block_for_each_step() -> None:
    assert [language for language, _ in BLOCKS].count("python") == 1
    assert [language for language, _ in BLOCKS].count("bash") >= 9


@pytest.mark.slow
@pytest.mark.needs_apt  # curl
def test_every_line_of_the_guide_runs(tmp_path: Path) -> None:
    said = run(tmp_path, script(free_port(), tmp_path))
    assert said.count("You may close this window.") == 2, "once for the command line, once for Python"
    assert said.count("verified: True") == 1
    assert said.count("failures: none") == 2, "the bundles of step 4 and of step 6"
    assert "consent: " in said
    for name in ("answer.bundle", "raw.bundle"):
        assert (tmp_path / name).stat().st_size > 10_000


def script(port: int, folder: Path) -> str:
    """Return the guide's blocks as one script, on a port that is free."""
    parts = ["set -euo pipefail"]
    for language, block in BLOCKS:
        if language == "python":
            (folder / "first_answer.py").write_text(block)
            parts.append(WHILE_PYTHON_WAITS)
        else:
            parts.append(block.replace(":8400", f":{port}").replace("--port 8400", f"--port {port}"))
    return "\n".join(parts)


def run(folder: Path, text: str) -> str:
    """Run a script in a folder and return what it said; whatever it started ends with it."""
    (folder / "guide.sh").write_text(text)
    environment = {
        **{name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    with started(["bash", "guide.sh"], folder, environment) as bash:
        said, _ = bash.communicate(timeout=900)
    log = folder / "serve.log"
    assert bash.returncode == 0, said[-4000:] + (log.read_text()[-2000:] if log.exists() else "")
    return said


@contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the session that this test made, and nothing else
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
