"""The witness cosigns what continues what it saw, whatever is sent and by how many at once; nothing else."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.waiting import until
from twinvault.cli import main
from twinvault.witness import BadWitness, Witness, server
from vault.encoding import JsonValue, dump_json, parse_json
from vault.proof.checkpoint import Checkpoint
from vault.proof.merkle import Edge, consistency_proof, leaf_hash, range_root
from vault.proof.note import NoteSignature, VerifierKey, parse_note, sign_note
from vault.proof.trust import TrustedRoot, dump_trust
from vault.proof.witness import AddCheckpoint, add_cosignature, verify_cosignatures

ORIGIN = "log.example/vault"


class Log:
    """A log in memory that signs any history it is told to."""

    def __init__(self, history: str = "a", private: Ed25519PrivateKey | None = None) -> None:
        self.private = private or Ed25519PrivateKey.generate()
        self.key = VerifierKey(ORIGIN, self.private.public_key().public_bytes_raw())
        self.leaves = [leaf_hash(f"{history} {n}".encode()) for n in range(64)]

    def hash_at(self, level: int, index: int) -> bytes:
        return Edge().extend(self.leaves[index << level : (index + 1) << level]).root

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, range_root(0, size, self.hash_at))

    def note(self, size: int) -> str:
        return sign_note(self.checkpoint(size).text, self.key, self.private.sign)

    def ask(self, old: int, new: int) -> bytes:
        proof = consistency_proof(old, new, self.hash_at) if 0 < old < new else []
        return AddCheckpoint(old, tuple(proof), self.note(new)).body


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def witness(log: Log, tmp_path: Path) -> Witness:
    return Witness.init(tmp_path / "w", "witness.example/1").watch(log.key)


@contextmanager
def listening(witness: Witness) -> Iterator[str]:
    with server(witness, "127.0.0.1", 0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}"
        finally:
            found.shutdown()
            thread.join()


def test_it_cosigns_what_continues_what_it_saw(log: Log, witness: Witness) -> None:
    for old, new in ((0, 1), (1, 1), (1, 5), (5, 8), (8, 40)):
        reply = witness.add_checkpoint(log.ask(old, new))
        assert reply.status == 200, reply
        cosigned = add_cosignature(log.note(new), witness.key, reply.text)
        assert list(verify_cosignatures(cosigned, log.checkpoint(new), [witness.key])) == ["witness.example/1"]


def test_a_stale_request_is_told_what_was_seen(log: Log, witness: Witness) -> None:
    witness.add_checkpoint(log.ask(0, 7))
    for old, new in ((0, 7), (3, 9), (6, 6)):
        reply = witness.add_checkpoint(log.ask(old, new))
        assert (reply.status, reply.media_type, reply.text) == (409, "text/x.tlog.size", "7\n")


def test_a_fork_is_never_cosigned(log: Log, witness: Witness) -> None:
    fork = Log("b", log.private)
    assert witness.add_checkpoint(log.ask(0, 10)).status == 200
    for size in (10, 11, 40):
        assert witness.add_checkpoint(fork.ask(10, size)).status == 422
        mixed = AddCheckpoint(10, tuple(consistency_proof(10, 40, log.hash_at)), fork.note(size))
        assert witness.add_checkpoint(mixed.body).status == 422
    assert witness.add_checkpoint(log.ask(10, 12)).status == 200


def test_a_shorter_log_is_never_cosigned(log: Log, witness: Witness) -> None:
    witness.add_checkpoint(log.ask(0, 10))
    assert witness.add_checkpoint(AddCheckpoint(10, (), log.note(4)).body).status == 400
    assert witness.add_checkpoint(log.ask(4, 4)).status == 409
    assert witness.add_checkpoint(log.ask(0, 4)).status == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff", 400),
        (b"old 0\n\n", 400),
        (b"old -1\n\nx\n", 400),
        (b"old 00\n\nx\n", 400),
        (b"old 0\n" + b"A" * 44 + b"\n" * 2, 400),
        (b"old 0\n" + b"\n".join([b"A" * 43 + b"="] * 64) + b"\n\nx\n", 400),
        (b"old 0\n\n" + b"[" * 70_000, 400),
    ],
)
def test_a_request_that_is_none_is_refused(body: bytes, status: int, witness: Witness) -> None:
    assert witness.add_checkpoint(body).status == status


def test_only_watched_logs_and_their_own_keys_are_cosigned(log: Log, witness: Witness) -> None:
    assert witness.add_checkpoint(Log().ask(0, 3)).status == 403
    other = VerifierKey("other.example/log", log.key.public_key)
    text = Checkpoint(other.name, 3, log.checkpoint(3).root).text
    assert witness.add_checkpoint(AddCheckpoint(0, (), sign_note(text, other, log.private.sign)).body).status == 404
    altered = log.ask(0, 3).replace(b"\n3\n", b"\n4\n")
    assert witness.add_checkpoint(altered).status == 403


def test_stray_signatures_do_not_fill_its_store(log: Log, witness: Witness) -> None:
    """Anyone may add lines of unknown keys to a log's own note; the next checkpoint must pass all the same."""
    strays = "".join(f"— stray.example/{n} QUFBQUFBQUE=\n" for n in range(31))
    assert len(parse_note(log.note(4) + strays).signatures) == 32
    assert witness.add_checkpoint(AddCheckpoint(0, (), log.note(4) + strays).body).status == 200
    assert witness.add_checkpoint(log.ask(4, 9)).status == 200


def test_a_stray_line_with_the_log_s_key_id_is_not_taken_for_the_log_s(log: Log, witness: Witness) -> None:
    """An id has four bytes and is public: only with the name it is the log's."""
    text, line = log.note(4).split("\n\n")
    stray = NoteSignature("stray.example", log.key.key_id, bytes(64)).line
    assert witness.add_checkpoint(AddCheckpoint(0, (), f"{text}\n\n{stray}{line}").body).status == 200
    assert witness.add_checkpoint(log.ask(4, 9)).status == 200


def test_many_at_once_cosign_one_history(log: Log, witness: Witness, tmp_path: Path) -> None:
    """Two processes' worth of witnesses on one folder, and two histories that race for it."""
    histories = [Log("a", log.private), Log("b", log.private)]
    witnesses = [witness, Witness(tmp_path / "w")]
    start = threading.Barrier(16)

    def race(n: int) -> tuple[int, int]:
        start.wait()
        return n % 2, witnesses[n // 8].add_checkpoint(histories[n % 2].ask(0, 3 + n)).status

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(race, range(16)))
    assert sorted(status for _, status in results) == [200] + [409] * 15


def test_two_processes_take_turns(log: Log, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the folder: the request waits, and then sees what that one cosigned."""
    statuses: list[int] = []
    other, asks, flock = Witness(tmp_path / "w"), threading.Event(), fcntl.flock
    with other._alone():
        monkeypatch.setattr(fcntl, "flock", lambda *how: asks.set() or flock(*how))
        waiting = threading.Thread(target=lambda: statuses.append(witness.add_checkpoint(log.ask(0, 3)).status))
        waiting.start()
        until(lambda: asks.is_set() or not waiting.is_alive(), "the request asks for its turn")
        first = other._advance(log.key, AddCheckpoint(0, (), log.note(2)), log.checkpoint(2))
    waiting.join()
    assert (first.status, statuses) == (200, [409])


def test_what_it_saw_outlives_it(log: Log, witness: Witness, tmp_path: Path) -> None:
    witness.add_checkpoint(log.ask(0, 6))
    again = Witness(tmp_path / "w")
    assert again.key == witness.key
    assert again.add_checkpoint(Log("b", log.private).ask(6, 9)).status == 422
    assert again.newest(sha256(ORIGIN.encode()).hexdigest()) is not None
    assert again.newest("../witness.json") is None


def test_a_second_key_under_a_logs_name_is_refused(log: Log, witness: Witness) -> None:
    with pytest.raises(BadWitness):
        witness.watch(Log().key)
    with pytest.raises(BadWitness):
        Witness.init(witness.folder, "again.example")
    with pytest.raises(BadWitness):
        Witness(witness.folder / "nowhere")


def test_logs_that_two_processes_add_are_both_watched(log: Log, witness: Witness, tmp_path: Path) -> None:
    keys = [replace(log.key, name=f"log.example/{n}") for n in range(2)]
    for key, process in zip(keys, [Witness(tmp_path / "w") for _ in keys], strict=True):
        process.watch(key)
    assert Witness(tmp_path / "w")._logs == {key.name: key for key in (log.key, *keys)}


@pytest.mark.parametrize(
    "changed",
    [{"format": "other/v1"}, {"name": 1}, {"seed": "AAAA"}, {"logs": ""}, {"logs": [1]}, {"more": 1}, {"name": "a b"}],
    ids=str,
)
def test_a_damaged_folder_is_no_witness(witness: Witness, changed: dict[str, JsonValue]) -> None:
    path = witness.folder / "witness.json"
    path.write_bytes(dump_json(parse_json(path.read_bytes()) | changed))
    with pytest.raises(BadWitness, match=r"cannot be read|no witness of a kind"):
        Witness(witness.folder)


def test_it_answers_over_http(log: Log, witness: Witness) -> None:
    with listening(witness) as url, httpx.Client(base_url=url) as client:
        first = client.post("/add-checkpoint", content=log.ask(0, 2))
        assert first.status_code == 200
        conflict = client.post("/add-checkpoint", content=log.ask(0, 5))
        assert (conflict.status_code, conflict.headers["content-type"], conflict.text) == (
            409,
            "text/x.tlog.size",
            "2\n",
        )
        monitored = client.get(f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint").text
        assert list(verify_cosignatures(monitored, log.checkpoint(2), [witness.key])) == ["witness.example/1"]
        assert client.get("/witness.json").status_code == 404
        assert client.post("/other", content=b"x").status_code == 404
        assert client.post("/add-checkpoint", content=b"x" * 100_000).status_code == 400


def test_the_command_makes_a_witness_for_a_trust_file(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = tmp_path / "trust.json"
    trust.write_bytes(dump_trust(TrustedRoot("https://vault.example", ORIGIN, log.key, log.key.public_key)))

    def run(*argv: object) -> dict[str, str]:
        with pytest.raises(SystemExit) as end:
            main(["witness", *map(str, argv), "--json"])
        assert end.value.code in {None, 0}
        found: dict[str, str] = json.loads(capsys.readouterr().out)
        return found

    key = run("init", tmp_path / "w", "--name", "witness.example/2")["key"]
    assert run("watch", tmp_path / "w", "--trust", trust)["log"] == log.key.text
    found = Witness(tmp_path / "w")
    assert found.key.text == key
    assert found.add_checkpoint(log.ask(0, 1)).status == 200
    seed = parse_json((tmp_path / "w/witness.json").read_bytes())["seed"]
    assert (tmp_path / "w/witness.json").stat().st_mode & 0o777 == 0o600
    assert str(seed) not in capsys.readouterr().out
