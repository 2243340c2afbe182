"""Two whole installations, each as its operator runs it, each with a witness that cosigns the other's log."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.client_kit import Service
from tests.http_kit import QUESTION, House
from tests.process_kit import App
from tests.site_kit import worker_settings
from tests.waiting import until
from twinvault.demo.service import _environment, twinvault_command
from twinvault.profile import read_trust
from twinvault.witness import Witness
from vault.clock import SystemClock
from vault.ops.site import Site, set_up
from vault.proof.bundle import parse_bundle
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.note import VerifierKey
from vault.proof.receipt import parse_receipt
from vault.proof.trust import TrustedRoot
from vault.proof.verify import Step, verify_bundle
from vault.proof.witness import verify_cosignatures
from vault.tlog.witnesses import WitnessSite
from vault.twin.children import Children
from vault.worker import open_worker, run_once


class Deployment:
    """A site of its own, its witness in a process of its own, and `serve`, started once all are set up."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.site = folder, Site(folder / "site")
        self.url = f"http://127.0.0.1:{_free_port()}"
        set_up(
            self.site, issuer=self.url, log_origin=f"{name}/log", database_url=None, shortkeys_url=None,
            now=SystemClock().now(),
        )  # fmt: skip
        self.witness = Witness.init(folder / "witness", f"{name}/witness")
        self.watched_at = ""

    @contextmanager
    def _child(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with (
            (self.folder / "children.log").open("a") as log,
            subprocess.Popen(
                [*twinvault_command(), *arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
            ) as child,
        ):
            try:
                yield child
            finally:
                child.terminate()

    @contextmanager
    def watching(self, other: Deployment) -> Iterator[None]:
        """Let this one's witness cosign the other's log."""
        self.witness.watch(other.site.log_key)
        with self._child("witness", "serve", str(self.folder / "witness"), "--port", "0", "--json") as child:
            assert child.stdout is not None
            other.site.add_witness(
                WitnessSite(self.witness.key, json.loads(child.stdout.readline())["url"]), quorum=1, max_age_s=600
            )
            yield

    @contextmanager
    def serving(self, children: Children) -> Iterator[House]:
        """Run `serve`, with a worker at hand, and return people around it."""
        database, shortkeys = self.site.databases()
        app = App(type("State", (), {"database": database, "shortkeys": shortkeys}))
        trust = read_trust(self.site.trust_file)
        found = Service(self.site, app, trust, self.url)  # type: ignore[arg-type]  # no app in this process
        settings = worker_settings(self.site)
        port = self.url.rpartition(":")[2]
        with (
            self._child("serve", str(self.site.folder), "--port", port, "--processes", "1", "--no-worker"),
            open_worker(settings, children, SystemClock()) as worker,
            closing(database),
            closing(shortkeys),
        ):

            def work() -> None:
                while run_once(worker):
                    pass

            with closing(House(found, self.folder, work)) as house:
                until(lambda: _ready(house), "the service starts")
                yield house


def _ready(house: House) -> bool:
    try:
        return house.http.get("/readyz").is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _cosigned(note: str, trust: TrustedRoot, witness: VerifierKey) -> bool:
    return witness.name in verify_cosignatures(note, verify_checkpoint(note, trust.log, trust.origin), [witness])


@pytest.mark.slow
def test_two_deployments_cosign_each_other_and_every_receipt_shows_it(tmp_path: Path) -> None:
    here, there = (Deployment(tmp_path / name, f"{name}.example") for name in ("here", "there"))
    pairs = ((here, there), (there, here))
    with ExitStack() as stack:
        children = stack.enter_context(Children())
        for one, other in pairs:
            stack.enter_context(one.watching(other))
        houses = [stack.enter_context(one.serving(children)) for one, _ in pairs]
        for house, (_, other) in zip(houses, pairs, strict=True):
            trust, witness = house.service.trust, other.witness.key
            assert trust.witnesses is not None
            assert trust.witnesses.keys == (witness,)

            def is_cosigned(index: int, *, at: House = house, by: VerifierKey = witness) -> bool:
                receipt = parse_receipt(at.http.get(f"/v1/log/receipt/{index}").text)
                return _cosigned(receipt.checkpoint, at.service.trust, by)

            until(lambda look=is_cosigned: look(0), "the other deployment's witness cosigns")
            owner, company = house.owner_with_twin((1,)), house.company()
            answered = company.ask(house.consent(owner, company), QUESTION)
            bundle = parse_bundle(answered.bundle)
            report = verify_bundle(bundle, trust)
            assert (report.failures, report.checked[Step.WITNESSES]) == ((), 1)
            leaf = max(leaf.index for leaf in bundle.leaves)  # the answer's; the witness sees it seconds later
            until(lambda leaf=leaf, look=is_cosigned: look(leaf), "the answer's receipt is cosigned")
    assert here.site.log_key != there.site.log_key
