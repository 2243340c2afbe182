"""The log has its checkpoints cosigned; a fork shown to two parties finds no quorum on one of its sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.clients.test_witness import listening
from tests.tlog.test_files import Growing
from twinvault.witness import Witness
from vault.db import Database
from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.note import COSIGNATURE, NoteSignature, VerifierKey, sign_note
from vault.proof.receipt import parse_receipt, verify_receipt
from vault.proof.witness import Witnessed, WitnessPolicy, cosign, verify_cosignatures, verify_witnessed
from vault.seal.signing import SigningKey, new_seed
from vault.tlog import log
from vault.tlog.witnesses import (
    BadWitnesses,
    Witnesses,
    WitnessPlan,
    WitnessSite,
    dump_plan,
    newest,
    parse_plan,
    witnessed,
)


class Watched:
    """A growing log and the witnesses that it asks over HTTP."""

    def __init__(self, growing: Growing, witnesses: list[Witness], urls: list[str], quorum: int) -> None:
        self.growing, self.witnesses = growing, witnesses
        sites = tuple(WitnessSite(one.key, url) for one, url in zip(witnesses, urls, strict=True))
        self.plan = WitnessPlan(sites, quorum, 600)
        self.asking = Witnesses(growing.key, self.plan)

    def to(self, size: int) -> int:
        self.growing.to(size)
        return self.asking.ask(self.growing.database)

    def seen(self) -> tuple[int, str] | None:
        with self.growing.database.snapshot() as session:
            return newest(session)

    def shown(self) -> Witnessed | None:
        with self.growing.database.snapshot() as session:
            size, _ = log.head(session)
            return witnessed(session, size, log.hashes_at(session, size))

    def verify(self, latest_s: int = 0) -> None:
        policy = self.plan.policy
        assert policy is not None
        with self.growing.database.snapshot() as session:
            checkpoint = verify_checkpoint(log.checkpoint(session), self.growing.key, self.growing.key.name)
        verify_witnessed(self.shown(), checkpoint, self.growing.key, policy, latest_s)


@pytest.fixture
def watched(
    sqlite_database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes], tmp_path: Path
) -> Iterator[Watched]:
    growing = Growing(sqlite_database, log_key, sign, tmp_path / "public")
    witnesses = [Witness.init(tmp_path / f"w{n}", f"witness.example/{n}").watch(log_key) for n in range(3)]
    with ExitStack() as stack:
        urls = [stack.enter_context(listening(one)) for one in witnesses]
        yield Watched(growing, witnesses, urls, 2)


def test_every_growth_is_cosigned_and_joined_to_later_ones(watched: Watched) -> None:
    for size in (1, 2, 300):
        assert watched.to(size) == 3
        watched.verify()
    watched.growing.to(310)
    assert watched.seen() is not None
    assert watched.seen()[0] == 300  # type: ignore[index]
    shown = watched.shown()
    assert shown is not None
    assert shown.proof, "a proof joins the cosigned tree to the newest"
    watched.verify()


def test_what_is_published_carries_the_cosignatures(watched: Watched) -> None:
    watched.growing.to(5)
    watched.growing.publish()
    watched.to(5)
    checkpoint = watched.growing.publish()
    text = (watched.growing.folder / "checkpoint").read_text()
    assert len(verify_cosignatures(text, checkpoint, [one.key for one in watched.witnesses])) == 3


def test_a_receipt_is_made_anew_under_the_cosigned_tree(watched: Watched) -> None:
    watched.to(40)
    watched.growing.to(50)
    with watched.growing.database.snapshot() as session:
        for index, size in ((3, 40), (45, 50)):
            text = log.receipt_for(session, index, newest(session))
            receipt = parse_receipt(text)
            assert len(text.encode()) < 6 * 1024
            assert verify_checkpoint(receipt.checkpoint, watched.growing.key, watched.growing.key.name).size == size
            entry = log.leaf(session, index).entry
            assert verify_receipt(text, entry, watched.growing.key, watched.growing.key.name) == index


def test_one_witness_out_of_reach_does_not_stop_the_others(watched: Watched) -> None:
    gone = replace(watched.plan.sites[0], url="http://127.0.0.1:1")
    watched.plan = replace(watched.plan, sites=(gone, *watched.plan.sites[1:]))
    watched.asking = Witnesses(watched.growing.key, watched.plan)
    assert watched.to(4) == 2
    watched.verify()


def test_fewer_than_the_quorum_are_not_kept(watched: Watched) -> None:
    sites = tuple(replace(site, url="http://127.0.0.1:1") for site in watched.plan.sites[:2])
    watched.plan = replace(watched.plan, sites=(*sites, watched.plan.sites[2]))
    watched.asking = Witnesses(watched.growing.key, watched.plan)
    assert watched.to(4) == 1
    assert watched.seen() is None
    with pytest.raises(InvalidProof, match="No witnessed checkpoint"):
        watched.verify()


def test_a_fork_shown_to_two_parties_is_caught(watched: Watched, postgresql_database: Database) -> None:
    """The same key signs two histories; every witness saw the first, so nobody believes the second."""
    assert watched.to(20) == 3
    fork = Watched(
        Growing(postgresql_database, watched.growing.key, watched.growing.sign, watched.growing.folder),
        watched.witnesses,
        [site.url for site in watched.plan.sites],
        2,
    )
    for size in (12, 20, 31):  # shorter, as long, longer
        assert fork.to(size) == 0
        with pytest.raises(InvalidProof):
            fork.verify()
    stolen = watched.shown()
    assert stolen is not None
    with fork.growing.database.snapshot() as session:
        forked = verify_checkpoint(log.checkpoint(session), fork.growing.key, fork.growing.key.name)
        size = forked.size
        proof = tuple(log.consistency(session, 20, size))
    policy = watched.plan.policy
    assert policy is not None
    for shown in (stolen, replace(stolen, proof=proof)):
        with pytest.raises(InvalidProof):
            verify_witnessed(shown, forked, fork.growing.key, policy, 0)
    watched.verify()


def test_a_verifier_says_how_many_and_how_stale(watched: Watched) -> None:
    watched.to(9)
    policy, shown = watched.plan.policy, watched.shown()
    assert policy is not None
    assert shown is not None
    key = watched.growing.key
    checkpoint = verify_checkpoint(shown.note, key, key.name)
    at_s = min(verify_cosignatures(shown.note, checkpoint, policy.keys).values())
    verify_witnessed(shown, checkpoint, key, policy, at_s + 600)
    with pytest.raises(InvalidProof, match="600 seconds older"):
        verify_witnessed(shown, checkpoint, key, policy, at_s + 700)
    lines = shown.note.split("\n")
    fewer = replace(shown, note="\n".join([*lines[:5], lines[5], ""]))
    with pytest.raises(InvalidProof, match="1 trusted witnesses cosigned where 2 must"):
        verify_witnessed(fewer, checkpoint, key, policy, 0)
    strangers = replace(
        policy, keys=tuple(replace(one, public_key=bytes([n]) * 32) for n, one in enumerate(policy.keys))
    )
    with pytest.raises(InvalidProof, match="0 trusted"):
        verify_witnessed(shown, checkpoint, key, strangers, 0)
    altered = replace(shown, note=shown.note.replace(lines[5][-20:], lines[5][-20:].swapcase()))
    with pytest.raises(InvalidProof):
        verify_witnessed(altered, checkpoint, key, policy, 0)


@pytest.mark.parametrize("newer_first", [False, True])
def test_two_keys_of_one_name_are_one_witness(newer_first: bool) -> None:
    """Else whoever has a witness's former key and its present one makes a quorum alone."""
    seeds, origin = [SigningKey(new_seed()) for _ in range(3)], "log.example/two"
    names = ("witness.example/1", "witness.example/1", "witness.example/2")
    keys = tuple(VerifierKey(name, seed.public_key, COSIGNATURE) for name, seed in zip(names, seeds, strict=True))
    log_seed = SigningKey(new_seed())
    log_key = VerifierKey(origin, log_seed.public_key)
    checkpoint = Checkpoint(origin, 1, bytes(32))
    lines = [cosign(checkpoint, keys[at], seeds[at].sign, 1_000 + at).line for at in (0, 1)]
    note = sign_note(checkpoint.text, log_key, log_seed.sign) + "".join(lines[::-1] if newer_first else lines)
    assert verify_cosignatures(note, checkpoint, keys) == {names[0]: 1_001}
    shown = Witnessed(note)
    verify_witnessed(shown, checkpoint, log_key, WitnessPolicy(keys, 1, 1), 1_002)
    with pytest.raises(InvalidProof, match="1 trusted witnesses cosigned where 2 must"):
        verify_witnessed(shown, checkpoint, log_key, WitnessPolicy(keys, 2, 600), 1_000)
    with pytest.raises(MalformedProof, match="keys of one name are one witness"):
        WitnessPolicy(keys[:2], 2, 600)


def test_a_log_set_back_learns_it_from_its_witness(watched: Watched, postgresql_database: Database) -> None:
    watched.to(20)
    older = Growing(postgresql_database, watched.growing.key, watched.growing.sign, watched.growing.folder)
    older.to(7)
    assert Witnesses(watched.growing.key, watched.plan).ask(older.database) == 0
    with older.database.snapshot() as session:
        assert newest(session) is None


def test_a_witness_that_lies_counts_for_nothing(watched: Watched) -> None:
    """It answers with another's line, a line of another tree, or noise."""
    watched.to(3)
    first = watched.seen()
    assert first is not None
    other_line = first[1].split("\n")[-2] + "\n"
    watched.growing.to(6)
    for answer in (other_line, "", "nonsense\n", "— witness.example/0 QUFBQUFBQUE=\n", "\n\n"):
        client = httpx.Client(transport=httpx.MockTransport(lambda _, text=answer: httpx.Response(200, text=text)))
        assert Witnesses(watched.growing.key, watched.plan, client).ask(watched.growing.database) == 0
        assert watched.seen() == first


def test_a_witness_cannot_spoil_what_the_others_sign(watched: Watched) -> None:
    """Beside its own good line it answers with a wrong one of each other, and as many strays as a note can hold."""
    _, *others = watched.plan.sites
    spoiling = [NoteSignature(site.key.name, site.key.key_id, bytes(72)).line for site in others]
    spoiling += [f"— stray.example/{n} QUFBQUFBQUE=\n" for n in range(29)]

    def answer(request: httpx.Request) -> httpx.Response:
        asked = httpx.post(request.url, content=request.read())
        lies = str(request.url).startswith(watched.plan.sites[0].url) and asked.status_code == httpx.codes.OK
        text = asked.text + "".join(spoiling) if lies else asked.text
        return httpx.Response(asked.status_code, text=text, headers={"Content-Type": asked.headers["Content-Type"]})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    watched.asking = Witnesses(watched.growing.key, watched.plan, client)
    assert watched.to(4) == 3
    assert watched.to(9) == 3
    watched.verify()


def test_the_plan_has_one_shape(watched: Watched) -> None:
    assert parse_plan(dump_plan(watched.plan)) == watched.plan
    good = dump_plan(watched.plan)
    for bad in (
        b"", b"[]", b"{}", good.replace(b'"quorum":2', b'"quorum":4'), good.replace(b'"quorum":2', b'"quorum":0'),
        good.replace(b"http://", b"file://"), good.replace(b"/v1", b"/v2"), good.replace(b'"max_age_s":600', b'"max_age_s":0'),
        good.replace(b"witness.example/1", b"witness.example/0"),
    ):  # fmt: skip
        with pytest.raises((BadWitnesses, MalformedProof)):
            parse_plan(bad)
