"""Answers: what one costs the server, over HTTP on loopback, with its receipt.

The server is the real one (`vault.app` under uvicorn, SQLite and daily rows as installed by default) in as many processes
as `serve` starts; its CPU time is that of all of them. Requests are signed beforehand, so that the clients take
little of the machine. In the same rounds a bare route takes the same requests and returns as many
bytes. Percentiles are those of `askers` clients that ask without a pause, each under a consent of its own.
`inference_p50_ms` is the CPU time, on one thread as in the server, of opening a year of imprint rows (of every day, a
month's together, as where days close with their month), reading them and ranking 100 candidates by their texts, none met before; `inference_cached_ms` finds rows and texts read.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from benchmarks._app import start
from tests.answer_kit import NEXT
from tests.consent_kit import NOW
from tests.twin.worker_kit import RETAIL_DAILY, TwinWorld
from tests.vault_kit import MONTH, PURCHASE
from vault.answers.reveals import narrow
from vault.budget.days import sigma_of
from vault.clock import unix_s
from vault.encoding import b64u, dump_json
from vault.imprint.block import DAILY, Block, dump_block, parse_block, strategy_from
from vault.imprint.chain import errors
from vault.imprint.noise import DiscreteGaussian
from vault.keys.identities import open_identity
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import APP, WORKER
from vault.oauth.client import ASSERTION_TYPE
from vault.ops.site import Site, set_up
from vault.proof.bundle import parse_bundle
from vault.proof.leaf import LeafKind
from vault.proof.trust import parse_trust
from vault.proof.verify import verify_bundle
from vault.schema.category import Category
from vault.schema.question import Candidate, Recommend, dump_question
from vault.schema.trace import Period, period_of, periods_from
from vault.seal import row as sealed_rows
from vault.seal.derive import imprint_key
from vault.seal.ids import ConsentId, new_id, sha256
from vault.seal.row import RowHeader, seal_row
from vault.seal.statement import KeyName
from vault.threads import one_thread
from vault.tlog.log import append
from vault.twin import release, rows
from vault.twin.infer import Prognosis, Reading, infer, read_days
from vault.twin.reader import closed_form
from vault.twin.rows import Place, StoredRow

TEXTS = 100
ROOT = Path(__file__).parents[1]
YEAR = periods_from(Period("2025-11"), 12)
BODY = dump_json(dump_question(NEXT))
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def blocks() -> Iterator[Block]:
    """Draw a year of daily rows without a trace, month by month: a chain for each calendar year."""
    sigma, firsts = sigma_of(RETAIL_DAILY, late=False), [date(int(p[:4]), int(p[5:]), 1) for p in YEAR]
    for begun in (firsts[0], *(first for first in firsts[1:] if first.month == 1)):
        months = [first for first in firsts if first >= begun and first.year == begun.year]
        days = [monthrange(first.year, first.month)[1] for first in months]
        noise = DiscreteGaussian(sigma).sample((sum(days), RETAIL_DAILY.size))
        made = np.split(errors(strategy_from(begun), noise), np.cumsum(days)[:-1])
        for first, values in zip(months, made, strict=True):
            yield Block(new_id() * 2, RETAIL_DAILY.digest, begun, first, RETAIL_DAILY.clip, sigma, values)


@dataclass
class Asker(TwinWorld):
    """One owner with a year of rows, and a company that asks under a consent of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.extend(*(period for period in YEAR if period not in self.owner.pages))
        with self.database.transaction() as session:
            for block in blocks():
                place, release_id = self.owner.compartment(PURCHASE, period_of(block.first)), block.release_id
                header = RowHeader(self.owner.vault, place.id, release_id, RETAIL_DAILY.version, 0)
                sealed = seal_row(dump_block(block), header, imprint_key(self.seed(place)), self.worker_key)
                leaf = append(session, LeafKind.RELEASE, {"rows": 1}, {"vault": b64u(self.owner.vault)})
                rows.put(session, [StoredRow(
                    self.owner.vault, place.id, release_id, 0, PURCHASE, place.period, RETAIL_DAILY.digest, 1,
                    sha256(sealed), sealed, leaf.id, DAILY, Place(block.first, len(block.values), block.start),
                )])  # fmt: skip
        self.consent = self.give(data_from=YEAR[0], data_to=MONTH, quota_per_month=100_000)


@dataclass
class Server:
    """The server's processes; `now` is their clock."""

    site: Site
    shift_s: int
    port: int
    processes: list[subprocess.Popen[bytes]]
    nonce: str = ""

    @property
    def issuer(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def now(self) -> datetime:
        """Time of the server's clock."""
        return datetime.now(UTC) + timedelta(seconds=self.shift_s)

    def cpu_s(self) -> float:
        """CPU time of all processes and their threads so far."""
        return sum(_cpu_s(process.pid) for process in self.processes)

    def token(self, asker: Asker, connection: http.client.HTTPConnection) -> str:
        """Return a fresh access token, and learn the nonce in force."""
        connection.close()  # the server drops a connection that idled while requests were signed
        form = urlencode({
            "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "scope": "twin:ask",
            "client_assertion": asker.company.assertion(self.issuer, self.now()),
        })  # fmt: skip
        for _ in range(2):
            proof = asker.company.proof("POST", f"{self.issuer}/v1/token", self.now(), nonce=self.nonce or None)
            headers = {"content-type": "application/x-www-form-urlencoded", "dpop": proof}
            connection.request("POST", "/v1/token", form, headers)
            response = connection.getresponse()
            data = json.loads(response.read())
            self.nonce = response.headers.get("DPoP-Nonce", self.nonce)
            if response.status == 200:
                return str(data["access_token"])
        raise RuntimeError(f"no token: {data}")

    def sign(self, asker: Asker, token: str, prefix: str = "/v1") -> tuple[str, dict[str, str]]:
        """Return path and headers of one new question."""
        consent, question_id, now = asker.consent.consent_id, new_id(), self.now()
        path = f"/v1/consents/{b64u(consent)}/answers/{b64u(question_id)}"
        proof = asker.company.proof("PUT", self.issuer + path, now, nonce=self.nonce, token=token)
        signed = asker.company.signed_question(self.issuer, consent, question_id, BODY, now)
        headers = {"authorization": f"DPoP {token}", "dpop": proof, "question-signature": signed}
        return (path if prefix == "/v1" else f"/bare/{b64u(consent)}/{b64u(question_id)}"), headers


@dataclass
class Round:
    """What one burst of all askers measured."""

    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU time of the server for each request."""
        return 1000 * self.cpu_s / len(self.latencies_s)


def burst(server: Server, work: list[list[tuple[str, dict[str, str]]]]) -> Round:
    """Send each asker's signed requests over a connection of its own, one after the other, all askers at once."""
    found, gate = Round(), threading.Barrier(len(work) + 1)

    def send(requests: list[tuple[str, dict[str, str]]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gate.wait()
        for path, headers in requests:
            started_s = time.perf_counter()
            connection.request("PUT", path, BODY, headers)
            response = connection.getresponse()
            response.read()
            found.latencies_s.append(time.perf_counter() - started_s)
            found.errors += response.status != 200
        connection.close()

    threads = [threading.Thread(target=send, args=(requests,)) for requests in work]
    for thread in threads:
        thread.start()
    cpu_s = server.cpu_s()
    gate.wait()
    started_s = time.perf_counter()
    for thread in threads:
        thread.join()
    found.wall_s, found.cpu_s = time.perf_counter() - started_s, server.cpu_s() - cpu_s
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def per_call_ms(call: Callable[[], object], times: int, clock_s: Callable[[], float] = time.perf_counter) -> float:
    """Return the median duration of a call."""
    spent = []
    for _ in range(times):
        started_s = clock_s()
        call()
        spent.append(clock_s() - started_s)
    return round(1000 * statistics.median(spent), 3)


def inference(asker: Asker) -> dict[str, float]:
    """Measure reading a year of rows, sealed and opened, in this process."""
    backbone, stored = closed_form(RETAIL_DAILY), asker.stored()
    keys = {
        c.id: imprint_key(asker.seed(c)) for page, _ in asker.owner.pages.values() for c in page.compartments.values()
    }

    def opened() -> list[Block]:
        found = []
        for item in stored:
            verified = sealed_rows.verify_row(sealed_rows.parse_row(item.sealed), asker.worker_key.public_key)
            found.append(parse_block(sealed_rows.open_row(verified, keys[item.compartment_id])))
        return found

    names, draw = [name.lower().split() for name in RETAIL_DAILY.names[:TEXTS]], random.Random(0)
    said = [word for name in names for word in name]

    def question() -> Recommend:
        """Return candidates that are as long as the map's names and made of their words, but that nobody met."""
        texts = (" ".join(draw.choices(said, k=len(name))) for name in names)
        return Recommend(
            PURCHASE, NEXT.purpose, tuple(Candidate(f"acme:{at}", text) for at, text in enumerate(texts)), 10
        )

    def ranked(asked: Recommend, consent_id: bytes, reading: Reading) -> Prognosis:
        narrowed, _, about = narrow(asked, RETAIL_DAILY, frozenset[Category](), ConsentId(consent_id))
        return infer(reading, narrowed, about)

    one_thread()
    known, consent_id, reading = question(), new_id(), read_days(backbone, RETAIL_DAILY, opened(), NOW.date())
    ranked(known, consent_id, reading)
    unmet = iter([question() for _ in range(50)])
    return {
        "inference_p50_ms": per_call_ms(
            lambda: ranked(next(unmet), new_id(), read_days(backbone, RETAIL_DAILY, opened(), NOW.date())),
            50,
            time.process_time,
        ),
        "inference_cached_ms": per_call_ms(lambda: ranked(known, consent_id, reading), 200, time.process_time),
    }


def measure(*, quick: bool, askers: int, processes: int) -> dict[str, Any]:
    """Run every part and return the figures."""
    rounds, each = (3, 8) if quick else (7, 25)
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        site, shift_s = Site(Path(name) / "site"), unix_s(NOW) - int(time.time()) + 60
        set_up(
            site, issuer=f"http://127.0.0.1:{port}", log_origin="log.example/bench", database_url=None,
            shortkeys_url=None, now=NOW,
        )  # fmt: skip
        world = people(site, askers)
        print(f"{askers} owners with {len(YEAR)} months of rows each", file=sys.stderr)
        started = start(site, shift_s, port, 40_000, processes)
        try:
            found = asking(Server(site, shift_s, port, started), world, rounds, each)
            return {**found, "processes": processes, **inference(world[0])}
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)


def people(site: Site, count: int) -> list[Asker]:
    """Make owners, rows, companies and consents in the site's databases."""
    database, shortkeys = site.databases()
    app, worker = (LocalKeyring(site.folder / "keys" / part) for part in ("app", "worker"))
    identities = {
        "serving": open_identity(site.folder / "keys" / "app", app, APP[KeyName.SERVING]),
        "processor": open_identity(site.folder / "keys" / "worker", worker, WORKER[KeyName.PROCESSOR]),
    }
    signer: Any = KmsSigner(worker, WORKER[KeyName.PROCESSOR_SIGN])
    with database.transaction() as session:
        release.publish_built_in(session, RETAIL_DAILY, signer)
    return [Asker(database, shortkeys, **identities, worker_key=signer) for _ in range(count)]


def asking(server: Server, world: list[Asker], rounds: int, each: int) -> dict[str, Any]:
    """Ask over HTTP and verify one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    tokens = [server.token(asker, connection) for asker in world]
    path, headers = server.sign(world[0], tokens[0])
    connection.request("PUT", path, BODY, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise RuntimeError(f"no answer: {content!r}")
    trust = parse_trust(server.site.trust_file.read_bytes().strip())
    if verify_bundle(parse_bundle(content), trust).failures:
        raise RuntimeError("the answer does not verify")
    answers, bare = [], []
    for number in range(rounds + 1):
        tokens = [server.token(asker, connection) for asker in world]  # also brings the nonce in force
        for prefix, found in (("/v1", answers), ("/bare", bare)):
            work = [[server.sign(a, t, prefix) for _ in range(each)] for a, t in zip(world, tokens, strict=True)]
            found.append(burst(server, work))
        print(f"round {number}: {answers[-1].cpu_ms:.2f} ms CPU an answer", file=sys.stderr)
    del answers[0], bare[0]  # the first opens every consent's keys and rows
    cpu_s = server.cpu_s()
    one_by_one = 10 * len(world)
    for number in range(one_by_one):
        asker = world[number % len(world)]
        path, headers = server.sign(asker, server.token(asker, connection))
        connection.request("PUT", path, BODY, headers)
        connection.getresponse().read()
    both_ms = 1000 * (server.cpu_s() - cpu_s) / one_by_one
    latencies = sorted(spent for each_round in answers for spent in each_round.latencies_s)
    answer_ms, bare_ms = (statistics.median(found.cpu_ms for found in part) for part in (answers, bare))
    return {
        "cpu_ms_per_answer": round(answer_ms, 2),
        "answers_per_s": round(statistics.median(len(found.latencies_s) / found.wall_s for found in answers), 1),
        "p50_ms": round(1000 * latencies[len(latencies) // 2], 1),
        "p99_ms": round(1000 * latencies[int(len(latencies) * 0.99)], 1),
        "askers": len(world),
        "bare_route_cpu_ms": round(bare_ms, 2),
        "ratio_to_bare_route": round(answer_ms / bare_ms, 2),
        "token_and_answer_cpu_ms": round(both_ms, 2),
        "verify_bundle_ms": per_call_ms(lambda: verify_bundle(parse_bundle(content), trust), 20),
        "bundle_bytes": len(content),
        "errors": sum(found.errors for found in (*answers, *bare)),
    }


def main() -> None:
    """Print the figures as a table, or with --json as one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--askers", type=int, default=20)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="as `serve --processes`")
    options = parser.parse_args()
    figures = measure(quick=options.quick, askers=options.askers, processes=options.processes)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for key, value in figures.items():
        print(f"{key:24} {value}")


if __name__ == "__main__":
    main()
