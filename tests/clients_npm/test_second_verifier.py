"""A second verifier, in TypeScript, says the same as the first of every bundle, honest, altered or forged: step and leaf."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.answer_kit import ORIGIN
from tests.attacks.log.liar import IN_FORCE, Liar
from tests.attacks.log.test_legacy import ATTACKS as LEGACY_ATTACKS
from tests.attacks.log.test_legacy_orders import ORDERS as LEGACY_ORDERS
from tests.attacks.log.test_legacy_waiting import UNWATCHED
from tests.audit_kit import audited, closed, kind_of, leaf_of, without
from tests.clients.test_witness import listening
from tests.clients_npm.alterations import damages, erasures, floods, notes, stranger, unwitnessed, values, with_leaf
from tests.clients_npm.models import certificates, ledgers, releases
from tests.clients_npm.vectors import Vectors
from tests.evidence.test_companies import asked_with, changed_keys, put_by_thief, shown, signed_anew, told_as
from tests.evidence.test_floods import as_anothers, flooded, members_in, told_anew
from tests.evidence.test_forged_months import LIES as FORGED_MONTHS
from tests.evidence.test_listing_lies import LIES as LISTING_LIES
from tests.evidence.test_tombstones import erase_all
from tests.legacy_kit import LATER
from tests.listing_kit import bundle_of, busiest, engaged, listed
from tests.proof.conftest import honest
from tests.proof.forge import Forge, Honest, Told, flip
from tests.proof.test_lying_service import SERVICE_ATTACKS
from tests.proof.test_verify import FILE_ATTACKS
from twinvault.witness import Witness
from vault.db import Database
from vault.encoding import JsonObject, JsonValue, b64u, dump_json
from vault.proof.bundle import Bundle, dump_bundle, records_by_hash
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.merkle import consistency_proof, leaf_hash, node_hash
from vault.proof.note import COSIGNATURE, VerifierKey
from vault.proof.ordered import is_subject_erasure
from vault.proof.tombstone import is_tombstone
from vault.proof.witness import WitnessPolicy, cosign
from vault.seal.signing import SigningKey, new_seed
from vault.store.shortkeys import create_table
from vault.tlog.witnesses import Witnesses, WitnessPlan, WitnessSite

__all__ = ["honest"]

pytestmark = pytest.mark.needs_npm


@pytest.fixture
def vectors(tmp_path: Path) -> Vectors:
    folder = tmp_path / "vectors"
    folder.mkdir()
    return Vectors(folder)


def test_every_way_of_altering_an_answer_is_told_alike(dist: Path, vectors: Vectors, honest: Honest) -> None:
    trust, bundle = honest.service.trust, honest.bundle
    other = SigningKey(new_seed()).public_key
    vectors.add("honest", bundle, trust)
    for name, changed in {
        "log": replace(trust, log=VerifierKey(ORIGIN, other)),
        "operator": replace(trust, operator=other),
    }.items():
        vectors.add(f"another {name}", bundle, changed)
    for name, (_, change) in FILE_ATTACKS.items():
        for at in range(len(bundle.leaves)):
            vectors.add(f"{name} of leaf {at}", with_leaf(bundle, at, change), trust)
    for name, note in notes(bundle.checkpoint).items():
        vectors.add(f"note {name}", replace(bundle, checkpoint=note), trust)
    for at, (digest, data) in enumerate(bundle.records.items()):
        rest = [record for key, record in bundle.records.items() if key != digest]
        vectors.add(f"record {at} gone", replace(bundle, records=records_by_hash(rest)), trust)
        for place in (-1, 0, len(data) // 2):
            vectors.add(
                f"record {at} flipped", replace(bundle, records=records_by_hash([*rest, flip(data, place)])), trust
            )
    for at in range(len(bundle.leaves)):
        vectors.add(f"leaf {at} gone", replace(bundle, leaves=(*bundle.leaves[:at], *bundle.leaves[at + 1 :])), trust)
    vectors.add("empty", replace(bundle, leaves=(), records={}), trust)
    vectors.compare(dist)
    assert vectors.refused() > 90


def test_every_lie_of_a_service_is_told_alike(dist: Path, vectors: Vectors, honest: Honest) -> None:
    for name, (_, _, attack) in SERVICE_ATTACKS.items():
        for whole in (False, True):
            forge = honest.forge()
            attack(forge)
            vectors.add(f"{name}, whole: {whole}", forge.bundle(whole=whole), honest.service.trust)
    for name, value in values().items():
        for kind, part, at in (
            (LeafKind.ANSWER, "personal", "consent_seq"), (LeafKind.ANSWER, "personal", "prev"), (LeafKind.ANSWER, "personal", "at"),
            (LeafKind.ANSWER, "personal", "version"), (LeafKind.ANSWER, "personal", "quota_left"),
            (LeafKind.ANSWER, "personal", "question_id"), (LeafKind.ANSWER, "public", "period"), (LeafKind.ANSWER, "public", "model"), (LeafKind.ANSWER, "personal", "consent"), (LeafKind.CONSENT, "personal", "version"),
            (LeafKind.CONSENT, "personal", "subject"), (LeafKind.CONSENT, "personal", "record"), (LeafKind.CONSENT, "personal", "consent_seq"),
        ):  # fmt: skip
            forge = honest.forge()
            getattr(forge.event(kind), part)[at] = value
            vectors.add(f"{kind} {at} {name}", forge.bundle(whole=True), honest.service.trust)
    said = json.loads(honest.forge().named(honest.forge().event(LeafKind.ANSWER).personal, "record"))
    spelled = [
        {**said, "predictions": said["predictions"][::-1]},
        {**said, "more": 1},
        {**said, "releases": [*said["releases"]] * 2},
    ]
    spelled += [{**said, member: value} for member in said for value in values().values()]
    spelled += [{**said, "predictions": [{**said["predictions"][0], "code": value}]} for value in ("", "a b", "é😀", 1)]
    for at, answer in enumerate(spelled):
        forge = honest.forge()
        forge.swap(forge.event(LeafKind.ANSWER).personal, "record", dump_json(answer))
        vectors.add(f"answer {at}", forge.bundle(whole=True), honest.service.trust)
    forge = honest.forge()
    forge.swap(forge.event(LeafKind.ANSWER).personal, "record", json.dumps(said).encode())
    vectors.add("an answer spelled otherwise", forge.bundle(whole=True), honest.service.trust)
    forge = honest.forge()
    many = json.loads(forge.named(forge.event(LeafKind.ANSWER).personal, "decision"))["context"]
    many["more"] = [{"id": "", "type": ""}] * 200_000
    forge.swap_json(forge.event(LeafKind.ANSWER).personal, "decision", context=many)
    vectors.add("a decision that names too much", forge.bundle(whole=True), honest.service.trust)
    late = honest.forge()
    late.events.append(Told(LeafKind.DENIAL, {}, {"consent": "x", "at": 1, "consent_seq": 1}, opened=True))
    vectors.add("dated back", late.bundle(whole=True), honest.service.trust)
    vectors.compare(dist)
    assert vectors.refused() > 100


def test_every_model_training_and_release_is_told_alike(dist: Path, vectors: Vectors, honest: Honest) -> None:
    for name, lie in (*certificates(), *ledgers(), *releases()):
        forge = honest.forge()
        lie(forge)
        vectors.add(name, forge.bundle(whole=True), honest.service.trust)
    vectors.compare(dist)
    assert {"certified", "charged and published"} <= {*vectors.accepted()}
    assert len(vectors.accepted()) > 20
    assert vectors.refused() > 150


@pytest.mark.parametrize("watched", [False, True], ids=["unwatched", "watched"])
def test_every_lie_about_a_legacy_is_told_alike(
    dist: Path, vectors: Vectors, sqlite_template: Path, tmp_path: Path, watched: bool
) -> None:
    for attack in (*LEGACY_ATTACKS, *LEGACY_ORDERS, *UNWATCHED, _waited_in_full):
        folder = tmp_path / attack.__name__
        folder.mkdir()
        shutil.copy(sqlite_template, folder / "vault.sqlite")
        databases = [Database(f"sqlite:///{folder}/{name}.sqlite") for name in ("vault", "short")]
        create_table(databases[1])
        liar = Liar(*databases)
        attack(liar)
        if watched:
            liar.seen(IN_FORCE)
        vectors.add(attack.__name__, *liar.shown(watched=watched))
        for database in databases:
            database.close()
    vectors.compare(dist)
    holds = (_waited_in_full,) if watched else (*UNWATCHED, _waited_in_full)
    assert {*vectors.accepted()} == {one.__name__ for one in holds}


def _waited_in_full(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    begun = liar.seen(LATER)
    liar.forced(witnessed=liar.saw(begun, liar.seen(IN_FORCE)))


def test_every_malformed_line_is_refused_alike(dist: Path, vectors: Vectors, honest: Honest) -> None:
    trust, lines = honest.service.trust, dump_bundle(honest.bundle).splitlines()
    for at in (0, 1, len(lines) - 1):
        for name, damage in damages().items():
            damaged = damage(lines[at])
            assert damaged != lines[at], name
            vectors.add(f"line {at} {name}", b"\n".join([*lines[:at], damaged, *lines[at + 1 :], b""]), trust)
        vectors.add(f"line {at} gone", b"\n".join([*lines[:at], *lines[at + 1 :], b""]), trust)
    for at, (name, value) in ((at, item) for at in (0, 1, len(lines) - 1) for item in values().items()):
        record = json.loads(lines[at])
        for member in record:
            line = dump_json({**record, member: value})
            vectors.add(f"line {at} {member} {name}", b"\n".join([*lines[:at], line, *lines[at + 1 :], b""]), trust)
    data = dump_bundle(honest.bundle)
    for cut in (0, 1, len(data) // 2, len(data) - 1):
        vectors.add(f"cut at {cut}", data[:cut], trust)
    vectors.add("two leaves exchanged", b"\n".join([lines[0], lines[2], lines[1], *lines[3:], b""]), trust)
    vectors.compare(dist)
    assert vectors.refused() > len(vectors.names) * 9 // 10


def test_a_month_its_witnesses_floods_and_erasures_are_told_alike(
    dist: Path, vectors: Vectors, sqlite_database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    with audited(sqlite_database, shortkeys, tmp_path) as site:
        consent = site.live()
        witness = Witness.init(tmp_path / "witness", "witness.example/1").watch(site.service.log)
        with listening(witness) as url:
            plan = WitnessPlan((WitnessSite(witness.key, url),), 1, 600)
            assert Witnesses(site.service.log, plan).ask(sqlite_database) == 1
        plain = site.service.trust
        trust = replace(plain, witnesses=WitnessPolicy((witness.key,), 1, 600))
        month = site.bundle()
        vectors.add("month", month, trust)
        for leaf in month.leaves:
            vectors.add(f"without {leaf.index}", without(month, leaf), trust)
            vectors.add(f"closed {leaf.index}", closed(month, leaf), plain)
        for name, (_, change) in FORGED_MONTHS.items():
            forge = Forge.of(site.service, month)
            change(forge)
            vectors.add(name, replace(forge.bundle(whole=True), withheld=month.withheld), plain)
        for name, lie in unwitnessed(month).items():
            vectors.add(name, lie, trust)
        vectors.add("a witness nobody trusts", month, replace(trust, witnesses=WitnessPolicy((stranger(),), 1, 600)))
        vectors.add(
            "a quorum of two", month, replace(trust, witnesses=WitnessPolicy((witness.key, stranger()), 2, 600))
        )
        former = SigningKey(new_seed())
        renamed = VerifierKey(witness.key.name, former.public_key, COSIGNATURE)
        seen = month.witnessed
        assert seen is not None
        line = cosign(verify_checkpoint(seen.note, plain.log, plain.origin), renamed, former.sign, 1_000).line
        both = replace(month, witnessed=replace(seen, note=seen.note + line))
        for name, quorum, others in (("two keys", 1, ()), ("two keys as two", 2, (stranger(),))):
            policy = WitnessPolicy((witness.key, renamed, *others), quorum, 600)
            vectors.add(name, both, replace(trust, witnesses=policy))
        key = engaged(site)
        chosen = listed(site, key, busiest(listed(site, key)).consent)
        vectors.add("sampled", bundle_of(site, key, chosen), plain)
        _, flood = flooded(site)
        for name, lie in floods(flood).items():
            vectors.add(name, lie, plain)
        vectors.add("denials of another's", told_anew(site, flood, as_anothers), plain)
        [group] = {member.group for member in members_in(flood)}
        vectors.add("a group alone", site.bundle(group, group), plain)
        erase_all(site)
        erased = site.bundle()
        assert any(map(is_tombstone, erased.records.values()))
        for name, lie in erasures(erased).items():
            vectors.add(name, lie, plain)
        begin = min(leaf.index for leaf in erased.leaves if kind_of(leaf) == "consent")
        for first in (0, begin):
            part = site.bundle(first)
            rest = [data for data in part.records.values() if not is_subject_erasure(data)]
            old = site.service.as_each_subject(days_ago=60).values()
            vectors.add(f"ordered long before {first}", replace(part, records=records_by_hash([*rest, *old])), plain)
        vectors.add("no erasure", without(erased, leaf_of(erased, LeafKind.ERASURE)), plain)
        honest_ones = {"month", "two keys", "flood", "a group alone", "erased"}
        for name, report in zip(vectors.names, vectors.first, strict=True):
            assert (report is not None and not report.failures) is (name in honest_ones) or name.startswith("closed"), (
                name
            )
    assert consent.version == 1
    vectors.compare(dist)


def test_the_records_of_a_company_are_followed_alike(
    dist: Path, vectors: Vectors, sqlite_database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    with audited(sqlite_database, shortkeys, tmp_path) as site:
        stolen = site.service.company.question
        answer, month = changed_keys(site)
        month, trust = shown(site, month), site.service.trust
        vectors.add("answer", answer, trust)
        vectors.add("month", month, trust)
        for bundle in (answer, month):
            for leaf in bundle.leaves:
                vectors.add(f"without {leaf.index}", without(bundle, leaf), trust)
        for name, lie in {
            "a thief's record": put_by_thief(site),
            "an agent": told_as(1),
            "a stolen key": asked_with(stolen, site),
        }.items():
            vectors.add(name, signed_anew(site, month, lie)[1], trust)
    vectors.compare(dist)
    assert vectors.accepted() == ["answer", "month"]


def test_an_audit_is_told_alike_across_its_parts(
    dist: Path, vectors: Vectors, sqlite_database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    with audited(sqlite_database, shortkeys, tmp_path) as site:
        site.live()
        end, trust = site.size(), site.service.trust
        cuts = [0, end // 3, end // 2, end]
        parts = [site.bundle(begin, until - 1) for begin, until in pairwise(cuts)]
        index = _index(parts, site.bundle())
        honest = [*map(dump_bundle, parts)]
        vectors.add_audit("honest", honest, index, trust)
        for at, part in enumerate(parts):
            for leaf in part.leaves:
                for name, lie in (("without", without(part, leaf)), ("closed", closed(part, leaf))):
                    vectors.add_audit(
                        f"{name} {leaf.index}", [*honest[:at], dump_bundle(lie), *honest[at + 1 :]], index, trust
                    )
        first, second, third = honest
        for name, some in {
            "exchanged": [first, third, second], "twice": [first, first, second], "one less": [first, second],
            "cut": [first, second[:-20], third], "late": [second, third],
        }.items():  # fmt: skip
            vectors.add_audit(name, some, index, trust)
        growth = index["growth"]
        assert isinstance(growth, list)
        for name, change in {
            "no growth": {"growth": [[], [], []]}, "less growth": {"growth": growth[:2]}, "growth of text": {"growth": "x"},
            "growth of other hashes": {"growth": [growth[0], growth[2], growth[1]]}, "further": {"end": end + 1},
            "begun later": {"first": 1}, "another format": {"format": "twinvault-audit/v2"}, "no end": {"end": ""},
            "no parts": {"growth": []},
        }.items():  # fmt: skip
            vectors.add_audit(name, honest, {**index, **change}, trust)  # type: ignore[dict-item]  # values of JSON
    assert vectors.accepted()[0] == "honest"
    vectors.compare(dist)


def test_a_listing_is_told_alike(
    dist: Path, vectors: Vectors, sqlite_database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    with audited(sqlite_database, shortkeys, tmp_path) as site:
        site.live()
        flooded(site)
        key, trust = engaged(site), site.service.trust
        row = busiest(listed(site, key)).consent
        chosen = listed(site, key, row)
        part = bundle_of(site, key, chosen)
        index: JsonObject = {
            "format": "twinvault-audit/v1", "first": chosen.first, "end": chosen.end, "growth": [[]],
        }  # fmt: skip
        opened = next(one for one in chosen.rows if one.consent == row)
        vectors.add_audit("honest", [dump_bundle(part)], index, trust, chosen)
        vectors.add_audit("without its listing", [dump_bundle(part)], index, trust)
        for name, (_, lie) in LISTING_LIES.items():
            vectors.add_audit(name, [dump_bundle(part)], index, trust, lie(chosen, opened))
        for leaf in part.leaves:
            vectors.add_audit(f"closed {leaf.index}", [dump_bundle(closed(part, leaf))], index, trust, chosen)
    assert vectors.accepted()[0] == "honest"
    assert not {*vectors.accepted()} & {*LISTING_LIES, "without its listing"}
    vectors.compare(dist)


def _index(parts: Sequence[Bundle], whole: Bundle) -> JsonObject:
    """Return an audit's index, with proofs out of all leaves."""
    hashes = [leaf_hash(leaf.entry) for leaf in whole.leaves]

    def hash_at(level: int, index: int) -> bytes:
        if level == 0:
            return hashes[index]
        return node_hash(hash_at(level - 1, 2 * index), hash_at(level - 1, 2 * index + 1))

    sizes = [int(part.checkpoint.split("\n")[1]) for part in parts]
    growth: list[JsonValue] = [[]]
    for before, now in pairwise(sizes):
        growth.append([b64u(item) for item in consistency_proof(before, now, hash_at)])
    return {"format": "twinvault-audit/v1", "first": 0, "end": parts[-1].complete_to, "growth": growth}
