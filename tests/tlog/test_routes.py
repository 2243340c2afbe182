"""A stranger with HTTP and the log's key rebuilds and checks everything; any change shows."""

import base64
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from vault.db import Database
from vault.http.problems import install_problems
from vault.proof import merkle
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.proof.tiles import Tile, hashes_from_tiles, parse_bundle, split_hashes
from vault.tlog import log
from vault.tlog.models import log_entry
from vault.tlog.routes import log_router
from vault.tlog.sequencer import Sequencer

SIZE = 700


@pytest.fixture
def client(database: Database, sequencer: Sequencer) -> Iterator[TestClient]:
    with database.transaction() as session:
        recorded = [log.append(session, LeafKind.ANSWER, {"n": n}, {}) for n in range(SIZE)]
    sequencer.wait(recorded[-1].id, 20)
    app = FastAPI()
    install_problems(app)
    app.include_router(log_router(database))
    with TestClient(app) as found:
        yield found


def _audit(client: TestClient, key: VerifierKey) -> int:
    """Fetch the log as an auditor does and rebuild its root from the entries."""
    checkpoint = verify_checkpoint(client.get("/v1/log/checkpoint").text, key, key.name)
    edge = merkle.Edge()
    for index in range(-(-checkpoint.size // 256)):
        width = min(256, checkpoint.size - 256 * index)
        bundle = client.get(f"/v1/log/{Tile(None, index, width).path}").content
        edge = edge.extend(map(merkle.leaf_hash, parse_bundle(bundle)))
    if (edge.size, edge.root) != (checkpoint.size, checkpoint.root):
        raise InvalidProof("the entries do not make the signed tree")
    return checkpoint.size


def test_an_auditor_rebuilds_the_signed_root_over_http(client: TestClient, log_key: VerifierKey) -> None:
    assert _audit(client, log_key) == SIZE


def test_an_auditor_sees_any_changed_entry(client: TestClient, database: Database, log_key: VerifierKey) -> None:
    with database.transaction() as session:
        session.connection().execute(update(log_entry).where(log_entry.c.leaf_index == 3).values(entry=bytes(65)))
    with pytest.raises(InvalidProof):
        _audit(client, log_key)


def test_proofs_made_from_served_tiles_verify(client: TestClient, log_key: VerifierKey) -> None:
    checkpoint = verify_checkpoint(client.get("/v1/log/checkpoint").text, log_key, log_key.name)

    def read_tile(level: int, index: int, width: int) -> bytes:
        response = client.get(f"/v1/log/{Tile(level, index, width).path}")
        assert response.status_code == 200
        return response.content

    hash_at = hashes_from_tiles(SIZE, read_tile)
    for index in (0, 255, 256, 511, 512, 699):
        proof = merkle.inclusion_proof(index, SIZE, hash_at)
        merkle.verify_inclusion(hash_at(0, index), index, SIZE, proof, checkpoint.root)


def test_consistency_is_served(client: TestClient, log_key: VerifierKey) -> None:
    checkpoint = verify_checkpoint(client.get("/v1/log/checkpoint").text, log_key, log_key.name)
    hashes = split_hashes(client.get("/v1/log/tile/0/000").content)
    answer = client.get("/v1/log/proof/consistency", params={"from": 100, "to": SIZE}).json()
    proof = [base64.b64decode(item) for item in answer["proof"]]
    merkle.verify_consistency(100, SIZE, proof, merkle.Edge().extend(hashes[:100]).root, checkpoint.root)


def test_only_what_never_changes_is_cached(client: TestClient) -> None:
    checkpoint = client.get("/v1/log/checkpoint")
    assert checkpoint.headers["cache-control"] == "no-cache"
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    tile = client.get("/v1/log/tile/0/001")
    assert "immutable" in tile.headers["cache-control"]
    assert tile.headers["content-type"] == "application/octet-stream"
    assert "immutable" not in client.get("/v1/log/tile/0/009").headers.get("cache-control", "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tile/0/003", 404), ("tile/0/002", 404), ("tile/0/002.p/189", 404), ("tile/1/000", 404), ("tile/1/001.p/1", 404),
        ("tile/entries/002.p/189", 404), ("tile/0/2", 404), ("tile/0/000.p/0", 404), ("tile/%2e%2e/checkpoint", 404),
        ("tile/x", 404), ("tile/63/x999/x999/x999/x999/x999/999", 404), ("proof/consistency", 422),
        ("proof/consistency?from=0&to=5", 422), ("proof/consistency?from=6&to=5", 422),
        ("proof/consistency?from=1&to=701", 404), ("proof/consistency?from=1&to=99999999999999999999", 422),
    ],
)  # fmt: skip
def test_what_the_log_does_not_have_is_a_problem_document(client: TestClient, path: str, status: int) -> None:
    response = client.get(f"/v1/log/{path}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
