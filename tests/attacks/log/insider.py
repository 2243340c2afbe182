"""What the service itself can do, which signs whatever it likes with the log's key."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from tests.attacks.log.world import MODEL, Tampered
from tests.audit_kit import training_row
from tests.consent_kit import NOW
from vault.clock import unix_s
from vault.encoding import JsonObject, JsonValue, b64u, parse_json
from vault.proof.certificate import Manifest, dump_manifest
from vault.proof.leaf import LeafKind
from vault.proof.merkle import Edge, leaf_hash
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import sha256


def answer_removed(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.ANSWER))
    t.sign_again()


def denial_removed(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.DENIAL))
    t.sign_again()


def withdrawal_removed(t: Tampered) -> None:
    t.remove(t.leaf(LeafKind.CONSENT, -1))
    t.sign_again()


def last_leaves_cut_off(t: Tampered) -> None:
    size = t.world.checkpoint.size
    for index in range(size - 1, size - 4, -1):
        t.remove(index)
    t.sign_again()


def answer_inserted_late(t: Tampered) -> None:
    index = t.leaf(LeafKind.ANSWER)
    t.add(LeafKind.ANSWER, *t.halves(index), index=index + 1)
    t.sign_again()


def _answered_again(t: Tampered, consent: bytes, **changed: JsonValue) -> None:
    """Log another answer under a consent, like its first, rightly numbered and chained, and sign."""
    chain: list[tuple[int, bytes]] = []
    for (index,) in t.sql(
        "SELECT leaf_index FROM log_entry WHERE kind IN ('consent', 'answer', 'denial') AND member IS NULL ORDER BY 1"
    ):
        body = t.opening(index, "personal_body")
        if parse_json(body).get("consent") == b64u(consent):
            chain.append((index, body))
    public, personal = t.halves(next(index for index, body in chain if b"quota_left" in body))
    left = personal["quota_left"]
    assert isinstance(left, int)
    personal |= {
        "quota_left": max(0, left - 1),
        "consent_seq": len(chain) + 1,
        "prev": b64u(sha256(chain[-1][1])),
    }
    for key, value in changed.items():
        (public if key in public else personal)[key] = value
    t.add(LeafKind.ANSWER, public, personal)
    t.sign_again()


def answered_again_rightly(t: Tampered) -> None:
    """No attack: it shows that what follows is noticed for what it changes, and for nothing else."""
    _answered_again(t, t.world.site.own.consent_id)


def answered_after_the_withdrawal(t: Tampered) -> None:
    _answered_again(t, t.world.consent.consent_id)


def answered_dated_back(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, at=unix_s(NOW) - 3600)


def answered_for_another_purpose(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, purpose="marketing")


def answered_by_an_unpublished_model(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, model=b64u(bytes(32)))


def answered_by_unpublished_rules(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, policy_set=b64u(bytes(32)))


def answered_without_a_decision(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, decision=b64u(bytes(32)))


def answered_somebody_else(t: Tampered) -> None:
    _answered_again(t, t.world.site.own.consent_id, requester="B" * 22)


def _rewritten(t: Tampered, kind: LeafKind, **changed: JsonValue) -> None:
    """Put another leaf in the place of the first of a kind, and sign."""
    index = t.leaf(kind)
    public, personal = t.halves(index)
    t.remove(index)
    t.add(kind, public, personal | changed, index=index)
    t.sign_again()


def denied_for_another_reason(t: Tampered) -> None:
    _rewritten(t, LeafKind.DENIAL, rules=["purpose-not-covered"])


def rewritten_without_its_chain(t: Tampered) -> None:
    """Nothing that any step reads is changed, but the next event of the consent names what stood here."""
    _rewritten(t, LeafKind.ANSWER, note="another")


def rewritten_with_another_quota(t: Tampered) -> None:
    _rewritten(t, LeafKind.ANSWER, quota_left=7)


def begun_anew(t: Tampered) -> None:
    t.sql("DELETE FROM log_opening")
    t.sql("DELETE FROM log_entry")
    t.add(LeafKind.VAULT_GENESIS, {}, {})
    t.sign_again()


def set_back_whole(t: Tampered) -> None:
    """Yesterday's database, whole and rightly signed."""
    size = t.world.checkpoint.size
    for index in range(size - 1, size - 5, -1):
        t.remove(index)
    t.sign_again()


def answered_without_counting(t: Tampered) -> None:
    own = b64u(t.world.site.own.consent_id)
    first = next(
        t.halves(index)[1]
        for (index,) in t.sql("SELECT leaf_index FROM log_entry WHERE kind = 'answer'")
        if t.halves(index)[1]["consent"] == own
    )
    _answered_again(t, t.world.site.own.consent_id, quota_left=first["quota_left"])


def answered_by_a_withdrawn_model(t: Tampered) -> None:
    public, _ = t.halves(t.leaf(LeafKind.ANSWER))
    said = {"model": public["model"], "reason": "It was refuted.", "at": unix_s(NOW) - 3600}
    t.add(LeafKind.MODEL_WITHDRAWN, said, {})
    _answered_again(t, t.world.site.own.consent_id)


def _published(t: Tampered, manifest: Manifest) -> None:
    """Sign a manifest as the worker does, and log it."""
    envelope = sign_record(PayloadType.MANIFEST, parse_json(dump_manifest(manifest)), t.service.worker_key)
    [[model]] = t.sql("SELECT model FROM model LIMIT 1")
    leaf = t.add(LeafKind.MANIFEST, {"model": b64u(manifest.digest), "record": b64u(envelope.digest)}, {})
    t.sql(
        "INSERT INTO model (map_digest, manifest_digest, model, envelope, leaf_id) VALUES (?, ?, ?, ?, ?)",
        manifest.map_sha256, manifest.digest, model, envelope.encoded, leaf,
    )  # fmt: skip


def _trained(t: Tampered, manifest: Manifest, **changed: JsonValue) -> None:
    """Log another training like the first, of this model."""
    public, personal = t.halves(t.leaf(LeafKind.TRAINING))
    row = training_row(manifest)
    said: JsonObject = {"release_id": row["release"], "model": b64u(manifest.digest), "cohort": manifest.cohort}
    t.add(LeafKind.TRAINING, public | said | changed, personal | {"charge": row})


def published_with_a_lower_epsilon(t: Tampered) -> None:
    """A model that never answered, whose certificate nobody else would look at."""
    _published(t, replace(MODEL, epsilon_ppm=MODEL.epsilon_ppm // 2))
    t.sign_again()


def published_twice_and_charged_once(t: Tampered) -> None:
    second = replace(MODEL, cohort=410)
    _published(t, second)
    public, personal = t.halves(t.leaf(LeafKind.TRAINING))
    t.add(LeafKind.TRAINING, public | {"model": b64u(second.digest), "cohort": 410}, personal)
    t.sign_again()


def trained_beyond_the_cap_of_the_year(t: Tampered) -> None:
    second = replace(MODEL, cohort=410)
    _published(t, second)
    _trained(t, second)
    t.sign_again()


def training_charged_too_little(t: Tampered) -> None:
    _, personal = t.halves(t.leaf(LeafKind.TRAINING))
    row = cast("JsonObject", personal["charge"])
    nano = cast("list[int]", row["renyi_nano"])
    _rewritten(t, LeafKind.TRAINING, charge=row | {"renyi_nano": [n // 2 for n in nano]})


def released_for_too_little(t: Tampered) -> None:
    public, personal = t.halves(t.leaf(LeafKind.RELEASE))
    t.add(LeafKind.RELEASE, public | {"mu2_micro": 1}, personal)
    t.sign_again()


def released_beyond_the_cap_of_a_day(t: Tampered) -> None:
    public, personal = t.halves(t.leaf(LeafKind.RELEASE))
    t.add(LeafKind.RELEASE, public | {"sensitivity": 256, "sigma": 64, "mu2_micro": 16_000_000}, personal)
    t.sign_again()


def _regrouped(t: Tampered, public: JsonObject, personal: JsonObject) -> None:
    """Put another leaf in the place of the one that denials share, and sign."""
    index = t.leaf(LeafKind.DENIALS)
    t.remove(index)
    t.add(LeafKind.DENIALS, public, personal, index=index)
    t.sql("UPDATE log_member SET group_id = (SELECT id FROM log_entry WHERE leaf_index = ?)", index)
    t.sign_again()


def flood_counted_lower(t: Tampered) -> None:
    """A denial of a flood is taken out, and the leaf says that it never was there: only who saw the tree can tell."""
    rows = t.sql("SELECT entry_id, entry FROM log_member JOIN log_entry ON id = entry_id ORDER BY position")
    t.sql("DELETE FROM log_member WHERE entry_id = ?", rows[-1][0])
    root = Edge().extend(leaf_hash(entry) for _, entry in rows[:-1]).root
    public, personal = t.halves(t.leaf(LeafKind.DENIALS))
    _regrouped(t, public | {"count": len(rows) - 1, "root": b64u(root)}, personal)


def flood_counted_higher(t: Tampered) -> None:
    public, personal = t.halves(t.leaf(LeafKind.DENIALS))
    _regrouped(t, public | {"count": 4}, personal)


def flood_of_another_company(t: Tampered) -> None:
    public, personal = t.halves(t.leaf(LeafKind.DENIALS))
    _regrouped(t, public, personal | {"requester": "B" * 22})
