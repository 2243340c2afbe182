from __future__ import annotations

import importlib.util
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from tests.waiting import until
from tests.wheel_kit import run
from twinvault.demo import histories
from twinvault.demo.evidence import flip_bit, read_shown
from twinvault.demo.histories import (
    COHORT_MONTHS,
    HELD_OUT,
    MONTHS,
    Histories,
    days_by_code,
    next_shops,
    read_traces,
    write_histories,
)
from twinvault.demo.service import DemoFailed, Service, _never_imported
from twinvault.demo.story import Story
from twinvault.demo.teller import Teller
from twinvault.receipts import NoReceipt
from vault.proof.bundle import Bundle, dump_bundle
from vault.schema.trace import Period, period_of

KEYS = {
    "seconds", "households", "stored_plaintext_hits", "canary_found_when_planted", "leaves", "epsilon_owner_day",
    "epsilon_person", "answer", "receipt_verified", "tamper_detected", "refused_after_withdrawal", "auditor_failures",
}  # fmt: skip
HOUSEHOLDS = 400  # as the demo itself: of fewer, noise more often hides that the model is calibrated, and it is refused
DEMO = [sys.executable, "-m", "twinvault", "demo"]


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every process of one demo names in its command line or environment."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    left = _processes(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def _processes(folder: Path) -> list[int]:
    """Return the processes, other than this one, that were started with a folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"TMPDIR={folder}".encode() in (path / "environ").read_bytes()
            ended = (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if mine and not ended and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def _require(figures: dict[str, Any]) -> None:
    assert figures.keys() == KEYS
    assert figures["households"] == HOUSEHOLDS + 1
    assert (figures["stored_plaintext_hits"], figures["canary_found_when_planted"]) == (0, True)
    assert figures["leaves"] > 10 * HOUSEHOLDS
    assert 0 < figures["epsilon_owner_day"] <= 3
    assert 0 < figures["epsilon_person"] <= 3
    assert len(figures["answer"]["predicted"]) == 5
    assert figures["receipt_verified"] is figures["tamper_detected"] is figures["refused_after_withdrawal"] is True
    assert figures["auditor_failures"] == 0


@contextmanager
def _begun(ended_by: signal.Signals, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a demo that stays up and listens to a signal, which tests that run in a shell's background ignore."""
    before = signal.signal(ended_by, signal.SIG_DFL)
    with (folder / "story.txt").open("w") as story:
        demo = subprocess.Popen([*DEMO, "--json"], stdout=subprocess.PIPE, stderr=story, text=True)
    signal.signal(ended_by, before)
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=120)


def _pasted(command: str) -> str:
    """Return what a line does in a fresh terminal: another folder, no environment of the project."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, command + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_story_holds_twice_in_a_row_and_leaves_nothing_behind(own_temporary: Path) -> None:
    done = subprocess.run([*DEMO, "--exit", "--json"], capture_output=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    _require(json.loads(done.stdout))
    assert _processes(own_temporary) == []
    assert list(own_temporary.glob("twinvault-demo-*")) == []


@pytest.mark.slow
def test_what_the_demo_says_to_paste_works_in_any_terminal_until_that_of_the_demo_is_closed(
    own_temporary: Path, base_python: Path
) -> None:
    """Owner, company, SDK and auditor; and the wheel without extras verifies what the demo wrote."""
    with _begun(signal.SIGHUP, own_temporary) as demo:
        said = own_temporary / "story.txt"
        until(lambda: "Ctrl-C stops" in said.read_text() or demo.poll() is not None, "the story is over", bound_s=900)
        assert demo.poll() is None, said.read_text()[-3000:]
        farewell = said.read_text().partition("To paste into another terminal:")[2]
        owner, company, auditor = (line for line in farewell.splitlines() if "-m twinvault " in line)
        history = _pasted(owner)
        assert "Corner Bakery: version 1 of your consent is in force." in history
        assert "The consent does not cover this purpose. (purpose-not-covered)" in history
        assert "salt" not in history
        assert "verified: True" in _pasted(company)
        assert "failures: none" in _pasted(auditor)
        title, *program = farewell.partition("# the company asks, in five lines")[2].splitlines()[:6]
        code = own_temporary / "ask.py"
        code.write_text("\n".join(program))
        assert _pasted(f"{title.partition(' for ')[2]} {code}").startswith("(Prediction(code='completejourney:")
        _, bundle, _, trust = shlex.split(auditor)[-4:]
        report = run(str(base_python), "-m", "twinvault", "auditor", "verify", bundle, "--trust", trust, "--json")
        assert json.loads(report.stdout)["failures"] == []
        demo.send_signal(signal.SIGHUP)
        figures, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130
    _require(json.loads(figures))
    assert list(own_temporary.glob("twinvault-demo-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_that_was_started(own_temporary: Path, number: signal.Signals) -> None:
    homes = "twinvault-demo-*/homes/household-*"
    with _begun(number, own_temporary) as demo:
        until(
            lambda: len(list(own_temporary.glob(homes))) > 3 or demo.poll() is not None,
            "the cohort's clients run as well",
        )
        assert demo.poll() is None
        assert len(_processes(own_temporary)) > 4
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=120)
    assert (demo.returncode, output) == (130, "")
    assert list(own_temporary.glob("twinvault-demo-*")) == []


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_everything_that_was_started(own_temporary: Path) -> None:
    """Its own terminal, so that what the demo writes when it is told fails as it does in life."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)

    def enter() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests by nohup has it ignored
        os.login_tty(slave)

    demo = subprocess.Popen(DEMO, preexec_fn=enter)  # noqa: PLW1509  (makes it the terminal's own)
    os.close(slave)
    homes = "twinvault-demo-*/homes/household-*"

    def joining() -> bool:
        with suppress(BlockingIOError):
            os.read(master, 1 << 16)  # or the terminal fills, and the demo waits for somebody to read
        return len(list(own_temporary.glob(homes))) > 3

    until(joining, "the cohort joins")
    os.close(master)
    assert demo.wait(120) == 130
    assert list(own_temporary.glob("twinvault-demo-*")) == []


def test_a_cohort_whose_model_would_often_be_refused_is_refused_at_once() -> None:
    done = subprocess.run([*DEMO, "--households", "300"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(HOUSEHOLDS) in done.stderr


def test_a_model_that_its_own_noise_refused_is_told_with_what_to_do(tmp_path: Path) -> None:
    service = Service(tmp_path)
    histories_of = Histories({}, 1, tmp_path / "household-1.parquet", 1)
    story = Story(service, histories_of, tmp_path, Teller(Console(quiet=True)))
    refused: Future[Any] = Future()
    refused.set_result({"job": 1, "outcome": "certificate-invalid"})
    with pytest.raises(DemoFailed, match="play again, or with more --households"):
        story._wait_for_model(refused)
    failed: Future[Any] = Future()
    failed.set_result({"job": 1, "outcome": "cohort-unsettled"})
    with pytest.raises(DemoFailed, match="not released: cohort-unsettled"):
        story._wait_for_model(failed)


def test_what_python_has_not_compiled_is_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    assert _never_imported("httpx")
    assert not _never_imported("no_such_package")
    compiled = Path(importlib.util.cache_from_source(str(httpx.__file__)))
    compiled.parent.mkdir(parents=True)
    compiled.touch()
    assert not _never_imported("httpx")
    compiled.unlink()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert not _never_imported("httpx")  # whatever was compiled ahead, nobody would find


def test_a_service_that_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("a file where the installation should lie")
    with pytest.raises(DemoFailed, match="operator init"), Service(tmp_path):
        pass
    assert (tmp_path / "logs" / "commands.log").read_text()


def test_households_are_chosen_by_a_public_rule_and_december_is_held_out(tmp_path: Path) -> None:
    chosen = write_histories(tmp_path / "first", 3)
    again = write_histories(tmp_path / "second", 3)
    assert (chosen.followed, chosen.shop_days) == (again.followed, again.shop_days)
    assert sorted(chosen.cohort) == [1, 2, 3]
    assert chosen.followed not in chosen.cohort
    for number, file in chosen.cohort.items():
        traces = read_traces(file, MONTHS)
        assert traces == read_traces(again.cohort[number], MONTHS)
        assert {period_of(trace.occurred_at.date()) for trace in traces} <= {*MONTHS, HELD_OUT}
        assert all(0 < share <= 1 for share in days_by_code(traces).values())
    shops = next_shops(chosen.followed_file)
    assert shops
    assert all(period_of(day) == HELD_OUT for day in shops)


def test_a_household_gives_all_that_it_bought_in_its_months_be_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = write_histories(tmp_path / "cut", 11)
    monkeypatch.setattr(histories, "COHORT_MONTHS", [Period("2016-01"), Period("2018-12")])
    whole = write_histories(tmp_path / "whole", 11)
    given = {number: read_traces(file, COHORT_MONTHS) for number, file in chosen.cohort.items()}
    assert given == {number: read_traces(file, COHORT_MONTHS) for number, file in whole.cohort.items()}
    assert [] in given.values()
    assert sum(map(len, given.values())) > 1_000


@pytest.mark.parametrize("function", [read_shown, flip_bit])
def test_a_bundle_without_an_answer_shows_nothing(function: Any) -> None:
    with pytest.raises(NoReceipt):
        function(dump_bundle(Bundle("", (), {})))
