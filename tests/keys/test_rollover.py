"""A reseal carries keys on to the next identity and nothing else: no wider, no other consent, nobody else's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.consent_kit import NOW, Held, World
from tests.leaves import leaves
from tests.policy_kit import ask_permit, refresh_permit
from vault.consent import handovers, reseals
from vault.consent.errors import KeysGone, StaleRecipient
from vault.consent.reseals import Live
from vault.db import Database
from vault.keys import statements
from vault.keys.identities import Epochs, make_identity
from vault.keys.kms import LocalKeyring, NoSuchKey
from vault.keys.processor import Processor
from vault.keys.rollover import Resealer, former, is_over, retire
from vault.keys.serving import Serving
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.chain import MAX_LINKS, Chain, parse_chain, verify_chain
from vault.seal.errors import SealError
from vault.seal.handover import Handover, KeyKind, reseal
from vault.seal.identity import Identity
from vault.seal.ids import ConsentId
from vault.seal.signing import SigningKey, new_seed
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement
from vault.seal.wrap import lock_short
from vault.store import shortkeys as short_key_store

SIGNERS = {KeyKind.RAW: KeyName.PROCESSOR_SIGN, KeyKind.IMPRINT: KeyName.SERVICE}


@dataclass
class Turn:
    """One kind of keys, from the identity that the world began with to the next."""

    world: World
    kind: KeyKind
    next: Identity
    signer: SigningKey

    @property
    def old(self) -> Identity:
        return self.world.processor if self.kind is KeyKind.RAW else self.world.serving

    def give(self) -> ConsentVersion:
        return self.world.give(ConsentKind.SELF if self.kind is KeyKind.RAW else ConsentKind.COMPANY)

    def resealer(self, signer: SigningKey | None = None) -> Resealer:
        world = self.world
        openers = Held((self.old, self.next))
        return Resealer(
            world.database, world.shortkeys, world.operator.public_key, self.kind, openers, signer or self.signer
        )

    def live(self) -> list[Live]:
        with self.world.database.snapshot() as session:
            return list(reseals.sealed_elsewhere(session, self.kind, self.next.recipient.key_hash))

    def move(self, **changed: Any) -> int:
        return self.resealer(**changed).move_all(self.next.recipient, NOW)

    def keys(self, version: ConsentVersion, *identities: Identity) -> dict[Any, bytes]:
        """Open the keys as the process does that holds these identities."""
        world = self.world
        openers, operator = Held(identities or (self.next,)), world.operator.public_key
        with world.database.snapshot() as session:
            if self.kind is KeyKind.RAW:
                return Processor(openers, world.shortkeys, operator).seeds(session, refresh_permit(world, version), NOW)
            kms = LocalKeyring.create(Path(f"{world.shortkeys.url.database}.ring"))
            serving = Serving(openers, kms, "serving/1", world.shortkeys, operator)
            return serving.imprint_keys(session, ask_permit(world, version), NOW)

    def chain(self, version: ConsentVersion) -> Chain:
        world = self.world
        with world.database.snapshot() as session:
            return handovers.read(session, world.shortkeys, ConsentId(version.consent_id), version.version, self.kind)


@pytest.fixture(params=list(KeyKind))
def turn(request: pytest.FixtureRequest, database: Database, shortkeys: Database) -> Turn:
    world = World(database, shortkeys)
    signer = SigningKey(new_seed())
    statement = KeyStatement(SIGNERS[request.param], 1, signer.public_key, int(NOW.timestamp()) - 1)
    with database.transaction() as session:
        statements.publish(session, sign_key_statement(statement, world.operator), world.operator.public_key)
    return Turn(world, request.param, Identity(new_seed()), signer)


def test_moved_keys_open_for_the_next_identity_only_and_the_move_is_logged(turn: Turn) -> None:
    version = turn.give()
    before, first = turn.keys(version, turn.old), turn.chain(version)
    assert turn.move() == 0
    assert turn.keys(version) == before
    with pytest.raises(SealError, match="another identity"):
        turn.keys(version, turn.old)
    chain = turn.chain(version)
    assert chain.envelopes[:1] == first.envelopes
    with turn.world.database.snapshot() as session:
        (_, public, personal) = next(leaf for leaf in leaves(session) if leaf[0] == "reseal")
        assert reseals.count_elsewhere(session, turn.kind, turn.next.recipient.key_hash) == 0
    assert personal is not None
    assert set(public) == {"kind", "period"}
    assert personal["keys"] == turn.kind
    gone = short_key_store.handover_key(first.newest.envelope.digest)
    assert short_key_store.read(turn.world.shortkeys, [gone]) == {}
    again = replace(turn, next=Identity(new_seed()))
    again.world = turn.world
    openers = Held((turn.next, again.next))
    moving = replace(turn.resealer(), openers=openers)
    assert moving.move_all(again.next.recipient, NOW) == 0
    assert again.keys(version) == before
    assert len(again.chain(version).links) == 2


def test_nothing_is_moved_twice_and_a_crash_between_loses_nothing(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    version = turn.give()
    put = reseals.put

    def die(*args: Any, **kwargs: Any) -> bool:
        put(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(reseals, "put", die)
    with pytest.raises(KeyboardInterrupt):
        turn.move()
    monkeypatch.undo()
    assert turn.keys(version, turn.old)  # the whole move was rolled back
    turn.move()
    digest = turn.chain(version).newest.envelope.digest
    turn.move()
    assert turn.chain(version).newest.envelope.digest == digest


@pytest.mark.parametrize("event", [ConsentEvent.WITHDRAWN, ConsentEvent.NARROWED])
def test_a_reseal_that_comes_after_a_change_revives_nothing(turn: Turn, event: ConsentEvent) -> None:
    world = turn.world
    version = turn.give()
    (live,) = turn.live()
    with world.database.snapshot() as session:
        resealed = turn.resealer()._resealed(session, live, turn.next.recipient)
    if event is ConsentEvent.WITHDRAWN:
        world.withdraw(version)
    else:
        world.amend(world.next(version, event))
    with world.database.transaction() as session:
        assert not reseals.put(session, live, resealed, short_keys=world.shortkeys, now=NOW)
    short_key_store.delete_scheduled(world.database, world.shortkeys)
    name = short_key_store.handover_key(resealed.newest.envelope.digest)
    assert short_key_store.read(world.shortkeys, [name]) == {}
    with world.database.snapshot() as session:
        assert not [leaf for leaf in leaves(session) if leaf[0] == "reseal"]
    if event is ConsentEvent.WITHDRAWN:
        with pytest.raises(KeysGone):
            turn.chain(version)
        assert turn.move() == 0
        assert turn.live() == []


def _forged(turn: Turn, version: ConsentVersion, forge: Callable[[Chain, Any], Chain]) -> None:
    """Put a forged chain in place, rightly locked: what an operator with all databases can do."""
    chain, owner = turn.chain(version), turn.world.owner
    verified = verify_chain(chain, owner.vault, [owner.key.public_key], [turn.signer.public_key])
    _lock(turn, version, forge(chain, verified))


def _lock(turn: Turn, version: ConsentVersion, chain: Chain) -> None:
    with turn.world.database.transaction() as session:
        digest = handovers.find_live(session, ConsentId(version.consent_id), version.version, turn.kind)
        name = short_key_store.handover_key(digest)
        key = short_key_store.read(turn.world.shortkeys, [name])[name]
        session.connection().execute(
            sqlalchemy.text("UPDATE handover SET locked = :locked WHERE digest = :digest"),
            {"locked": lock_short(key, chain.encoded, version.consent_id), "digest": digest},
        )


def _keys(turn: Turn, version: ConsentVersion) -> dict[Any, bytes]:
    return turn.keys(version, turn.old)


@pytest.mark.parametrize("by", ["owner", "stranger", "other process"])
def test_a_reseal_signed_by_another_key_is_refused(turn: Turn, by: str) -> None:
    version = turn.give()
    keys = _keys(turn, version)
    other = SigningKey(new_seed())
    if by == "other process":
        name = next(name for kind, name in SIGNERS.items() if kind is not turn.kind)
        statement = KeyStatement(name, 1, other.public_key, int(NOW.timestamp()) - 1)
        with turn.world.database.transaction() as session:
            operator = turn.world.operator
            statements.publish(session, sign_key_statement(statement, operator), operator.public_key)
    signer = turn.world.owner.key if by == "owner" else other
    _forged(turn, version, lambda chain, verified: chain.then(reseal(verified, keys, turn.next.recipient, signer)))
    with pytest.raises(SealError, match="never stated"):
        turn.keys(version)
    assert turn.move() == 1  # what does not verify is not carried on either


def test_a_broken_chain_is_refused(turn: Turn) -> None:
    version, other = turn.give(), turn.give()
    keys = _keys(turn, version)
    moved = reseal(
        verify_chain(turn.chain(version), turn.world.owner.vault, [turn.world.owner.key.public_key], []),
        keys, turn.next.recipient, turn.signer,
    )  # fmt: skip
    foreign = turn.chain(other)
    kept = turn.chain(version)
    signed = kept.newest.envelope
    unsigned = replace(signed, signatures=((signed.signatures[0][0], bytes(64)),))
    for forge in (
        lambda _chain, _verified: Chain((), moved),  # the owner's handover is missing
        lambda _chain, _verified: Chain((foreign.newest.envelope,), moved),  # of another consent
        lambda _chain, _verified: Chain((kept.newest.envelope, kept.newest.envelope), moved),
        lambda _chain, _verified: Chain((moved.envelope,), kept.newest),  # in another order
        lambda _chain, _verified: Chain((), replace(kept.newest, envelope=unsigned)),  # names the owner's key, no more
    ):
        _forged(turn, version, forge)
        with pytest.raises(SealError):
            turn.keys(version, turn.old, turn.next)
        _lock(turn, version, kept)
    assert _keys(turn, version) == keys


def test_a_reseal_carries_on_the_terms_of_what_it_replaces(turn: Turn) -> None:
    version = turn.give()
    keys = _keys(turn, version)
    for changed in ({"not_after_s": 1 << 40}, {"ring_version": 7}, {"consent": ConsentId(b"c" * 16)}):

        def forge(chain: Chain, verified: Any, changed: dict[str, Any] = changed) -> Chain:
            # Signed by the right key, about other terms: its predecessor's digest is right, its words are not.
            wider = Handover(verified.envelope, replace(verified.terms, **changed), verified.ciphertext)
            return chain.then(reseal(wider, keys, turn.next.recipient, turn.signer))  # type: ignore[arg-type]

        assert turn.chain(version).links == ()
        kept = turn.chain(version)
        _forged(turn, version, forge)
        with pytest.raises(SealError, match="carry on the terms"):
            turn.keys(version)
        _lock(turn, version, kept)


def test_a_handover_sealed_to_a_former_key_is_told_to_fetch_the_new_one(turn: Turn) -> None:
    version, _ = turn.world.first(ConsentKind.SELF)
    stale = {kind: turn.world.handover(kind, version) for kind in KeyKind}
    stale[turn.kind] = turn.world.handover(turn.kind, version, to=turn.next)
    with pytest.raises(StaleRecipient, match="fetch /v1/keys again") as refused:
        turn.world.give_this(turn.world.submission(version, handovers=tuple(stale.values())))
    assert (refused.value.slug, refused.value.status) == ("stale-recipient", 409)


def test_a_chain_has_one_encoding_and_an_end(turn: Turn) -> None:
    version = turn.give()
    chain = turn.chain(version)
    assert parse_chain(chain.encoded) == chain
    for broken in (b"", chain.encoded[:-1], chain.encoded + b"x", chain.newest.encoded):
        with pytest.raises(SealError):
            parse_chain(broken)
    long = Chain((chain.newest.envelope,) * (MAX_LINKS + 1), chain.newest)
    with pytest.raises(SealError, match="too often"):
        parse_chain(long.encoded)


def test_old_keys_are_destroyed_when_their_time_is_over_and_never_before(tmp_path: Path) -> None:
    kms = LocalKeyring.create(tmp_path / "app")
    for epoch in (1, 2):
        kms.generate(f"serving/{epoch}")
        make_identity(tmp_path / "app", kms, f"serving/{epoch}")
    statement = KeyStatement(KeyName.SERVING, 2, b"", int(NOW.timestamp()))
    assert former(kms, statement) == ["serving/1"]
    assert not is_over(statement, NOW + timedelta(seconds=59))
    assert is_over(statement, NOW + timedelta(seconds=60))
    for _ in range(2):
        retire(tmp_path / "app", kms, statement)
    assert former(kms, statement) == []
    assert sorted(path.name for path in (tmp_path / "app").iterdir()) == ["serving.2.key", "serving.2.wrapped"]
    with pytest.raises(NoSuchKey):
        kms.wrap("serving/1", b"", b"")


def test_an_identity_made_later_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    kms = LocalKeyring.create(tmp_path / "app")
    epochs = Epochs(tmp_path / "app", kms, "serving")
    assert epochs.find(b"x" * 32) is None
    kms.generate("serving/1")
    first = make_identity(tmp_path / "app", kms, "serving/1")
    kms.generate("serving/2")  # its identity is still being made
    found = epochs.find(first.key_hash)
    assert found is not None
    assert found.recipient.key_hash == first.key_hash
    second = make_identity(tmp_path / "app", kms, "serving/2")
    assert epochs.find(second.key_hash) is not None
