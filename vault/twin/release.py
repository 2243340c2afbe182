"""Models as the service keeps them: canonical bytes beside a manifest that processor-sign signed and the log holds."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import bindparam, insert, select
from sqlmodel import Session

from vault.clock import unix_s
from vault.db import Prepared
from vault.encoding import JsonObject, b64u, parse_json
from vault.errors import VaultError
from vault.imprint import funnel
from vault.imprint.features import FeatureMap
from vault.proof.certificate import Manifest, Required, dump_manifest, parse_manifest, verify_certificate
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.seal.dsse import PayloadType, parse_envelope, sign_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.ids import key_id
from vault.seal.signing import Signer
from vault.tlog.log import PendingId, append
from vault.twin.funnel import MAGIC, Head, dump_head, parse_head, shipped
from vault.twin.models import model, withdrawal
from vault.twin.reader import Backbone, BadBackbone, closed_form, closed_form_manifest, dump_backbone, parse_backbone

_RETRY_S: Final = 300
_WITHDRAWN: Final = withdrawal.c.leaf_id.is_not(None).label("withdrawn")
_WITH_STATE: Final = select(model.c.envelope, model.c.leaf_id, _WITHDRAWN).outerjoin(
    withdrawal, withdrawal.c.manifest_digest == model.c.manifest_digest
)
_NEWEST: Final = Prepared(_WITH_STATE.where(model.c.map_digest == bindparam("map_digest")).order_by(model.c.id.desc()))
_ENVELOPE: Final = select(model.c.envelope).where(model.c.manifest_digest == bindparam("manifest_digest"))
_BYTES: Final = select(model.c.model).where(model.c.manifest_digest == bindparam("manifest_digest"))
_MOST_KNOWN: Final = 16
_NONE_YET: Final = "No model here may answer now; try again once the operator has trained one."
_LAPSED: Final = (
    "No model here may answer now: the one for this question is too old to be certified. Try again once the operator has"
    " upgraded the service or trained another; `twinvault operator models list` names what lapsed."
)


class NoCertifiedModel(VaultError):
    """No model of this server may answer now."""

    slug = "no-certified-model"
    title = "No certified model"
    status = 409


M = TypeVar("M", Backbone, Head)


@dataclass(frozen=True, eq=False)
class Model(Generic[M]):
    """A model that may answer.

    Args:
        backbone: What it computes with; of visits, the head.
        manifest: What it cost and what was shown about it.
        envelope: The signed manifest's bytes, for answer bundles.
        leaf_id: The pending id of the manifest's leaf.
    """

    backbone: M
    manifest: Manifest
    envelope: bytes
    leaf_id: PendingId


@dataclass(frozen=True, eq=False)
class _Stated:
    """A model without its bytes, which may be hundreds of thousands.

    Args:
        manifest, envelope, leaf_id: As in `Model`.
    """

    manifest: Manifest
    envelope: bytes
    leaf_id: PendingId


@lru_cache(maxsize=16)
def required(feature_map: FeatureMap) -> Required:
    """Return what a model of this map must show: the built-in reader is the only one that needs no certificate."""
    return Required(built_in=frozenset({closed_form(feature_map).digest}))


def publish(session: Session, backbone: Backbone | Head, manifest: Manifest, signer: Signer) -> PendingId:
    """Store a model with its signed manifest and log it.

    Args:
        session: An open writing transaction.
        backbone: The model.
        manifest: Its manifest; the caller has verified its certificate.
        signer: The key `processor-sign`.

    Returns:
        The pending id of its leaf.
    """
    envelope = sign_record(PayloadType.MANIFEST, parse_json(dump_manifest(manifest)), signer)
    public = {"model": b64u(manifest.digest), "record": b64u(envelope.digest)}
    leaf = append(session, LeafKind.MANIFEST, {**public}, {})
    values = {
        "map_digest": backbone.map_digest,
        "manifest_digest": manifest.digest,
        "model": dump_head(backbone) if isinstance(backbone, Head) else dump_backbone(backbone),
        "envelope": envelope.encoded,
        "leaf_id": leaf.id,
    }
    session.connection().execute(insert(model), values)
    return leaf.id


def publish_built_in(session: Session, feature_map: FeatureMap, signer: Signer) -> None:
    """Store and log the closed-form reader unless it is there already; the worker does so when it starts."""
    _publish_once(session, closed_form(feature_map), closed_form_manifest(feature_map), signer)


def publish_shipped(session: Session, signer: Signer) -> None:
    """Store and log the head of visits that this release ships unless it is there already."""
    _publish_once(session, *shipped(), signer)


def _publish_once(session: Session, backbone: Backbone | Head, manifest: Manifest, signer: Signer) -> None:
    known = select(model.c.id).where(model.c.manifest_digest == manifest.digest)
    if session.connection().execute(known).one_or_none() is None:
        publish(session, backbone, manifest, signer)


def withdraw(session: Session, manifest_digest: bytes, reason: str, *, now: datetime) -> PendingId | None:
    """Let a model answer no more, and log that; what it answered before stays what it was.

    Args:
        session: An open writing transaction.
        manifest_digest: Of the model's manifest.
        reason: Why, for every auditor; names no person.
        now: The current time. A question that was asked before it may still be answered by the model.

    Returns:
        The pending id of the leaf, or None if the model was withdrawn before.

    Raises:
        NoCertifiedModel: No model of this manifest was released here.
    """
    envelope(session, manifest_digest)
    connection = session.connection()
    mine = select(withdrawal.c.leaf_id).where(withdrawal.c.manifest_digest == manifest_digest)
    if connection.execute(mine).one_or_none() is not None:
        return None
    public: JsonObject = {"model": b64u(manifest_digest), "reason": reason, "at": unix_s(now)}
    leaf = append(session, LeafKind.MODEL_WITHDRAWN, public, {})
    connection.execute(insert(withdrawal), {"manifest_digest": manifest_digest, "leaf_id": leaf.id})
    return leaf.id


def withdrawn(session: Session) -> frozenset[bytes]:
    """Return the digests of the manifests of all models that were withdrawn."""
    return frozenset(session.connection().execute(select(withdrawal.c.manifest_digest)).scalars())


def current(
    session: Session, feature_map: FeatureMap, worker_keys: Collection[bytes], now: datetime
) -> Model[Backbone]:
    """Return the model that answers now: the newest trained one whose certificate holds and that was not withdrawn.

    The closed-form reader answers only where no model was ever trained: a cohort's model that was withdrawn
    or whose certificate has lapsed is trained anew, not silently replaced.

    Args:
        session: Any transaction.
        feature_map: Map of the question's category.
        worker_keys: Every `processor-sign` key that the operator stated.
        now: The current time.

    Raises:
        NoCertifiedModel: There is none yet, or none whose signature and certificate hold.
    """
    return _current(session, feature_map.digest, worker_keys, now, required(feature_map))


def current_head(session: Session, worker_keys: Collection[bytes], now: datetime) -> Model[Head]:
    """Return the head that answers about visits now; what `current` says of models holds.

    Raises:
        NoCertifiedModel: There is none yet, or none whose signature and certificate hold.
    """
    return _current(session, funnel.DIGEST, worker_keys, now, Required(built_in=frozenset()))


def _current(
    session: Session, map_digest: bytes, worker_keys: Collection[bytes], now: datetime, accepted: Required
) -> Model[Any]:
    rows = _NEWEST.all(session, map_digest=map_digest)
    found = [(_stated(row.envelope, row.leaf_id), row.withdrawn) for row in rows]
    trained = [(one, ended) for one, ended in found if one.manifest.model_sha256 not in accepted.built_in]
    lapsed = False
    for one, ended in trained or found:
        if ended:
            continue
        try:
            _verify(one, frozenset(worker_keys))
            _verify_certificate(one.manifest, now.replace(second=0, microsecond=0), accepted)
            return Model(_computing(session, one.manifest), one.manifest, one.envelope, one.leaf_id)
        except (InvalidProof, SealError):
            lapsed = lapsed or unix_s(now) - one.manifest.trained_at > accepted.age_s
    raise NoCertifiedModel(_LAPSED if lapsed else _NONE_YET, retry_after_s=_RETRY_S)


def manifests(session: Session, worker_keys: Collection[bytes]) -> list[Manifest]:
    """Return the manifests of every model ever released here, newest first.

    Raises:
        SealError: One is not signed by a key of `worker_keys`, or describes another model than the one beside it.
    """
    found = []
    for row in session.connection().execute(select(model).order_by(model.c.id.desc())):
        one = _stated(row.envelope, row.leaf_id)
        _verify(one, frozenset(worker_keys))
        _described(row.model, one.manifest)
        found.append(one.manifest)
    return found


def trained(session: Session) -> list[Model[Backbone]]:
    """Return every model that was ever trained on people who live here, oldest first: a shipped head met none of them."""
    found = []
    for row in session.connection().execute(select(model).order_by(model.c.id)):
        one, backbone = _stated(row.envelope, row.leaf_id), _parsed(row.model)
        if one.manifest.charges and isinstance(backbone, Backbone):
            found.append(Model(backbone, one.manifest, one.envelope, one.leaf_id))
    return found


def framing(session: Session, feature_map: FeatureMap, worker_keys: Collection[bytes]) -> Backbone | None:
    """Return the backbone whose lens the days of a map are seen through: the oldest trained here that has one.

    It stays so however many are trained after it, for those keep its lens; one that was withdrawn frames nothing.

    Args:
        session: Any transaction.
        feature_map: Map of the category, without a lens.
        worker_keys: Every `processor-sign` key that the operator stated.
    """
    for row in reversed(_NEWEST.all(session, map_digest=feature_map.digest)):
        one = _stated(row.envelope, row.leaf_id)
        if row.withdrawn or not one.manifest.charges:
            continue
        # One that is not the worker's, or cannot be read, frames nothing; it must not stop everybody's refresh.
        with suppress(SealError, BadBackbone):
            _verify(one, frozenset(worker_keys))
            found = _computing(session, one.manifest)
            if isinstance(found, Backbone) and found.lens is not None:
                return found
    return None


def envelope(session: Session, manifest_digest: bytes) -> bytes:
    """Return the signed manifest of a model that was ever released here.

    Raises:
        NoCertifiedModel: None of that digest.
    """
    found = session.connection().execute(_ENVELOPE, {"manifest_digest": manifest_digest}).scalar_one_or_none()
    if found is None:
        raise NoCertifiedModel("No model of this manifest was released here.")
    return bytes(found)


# Keyed by the stored bytes themselves, so an entry can never be stale.
@lru_cache(maxsize=256)
def _stated(envelope: bytes, leaf_id: int) -> _Stated:
    return _Stated(parse_manifest(parse_envelope(envelope).payload), envelope, PendingId(leaf_id))


_KNOWN: Final[dict[bytes, Backbone | Head]] = {}


def _computing(session: Session, manifest: Manifest) -> Any:
    """Return the model of a verified manifest: kept by the digest that it names, so it can be no other."""
    found = _KNOWN.get(manifest.model_sha256)
    if found is None:
        stored = session.connection().execute(_BYTES, {"manifest_digest": manifest.digest}).scalar_one()
        found = _described(stored, manifest)
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[manifest.model_sha256] = found
    return found


def _described(stored: bytes, manifest: Manifest) -> Backbone | Head:
    """Return a stored model.

    Raises:
        SealError: The manifest describes another one.
    """
    found = _parsed(stored)
    if found.digest != manifest.model_sha256:
        raise SealError("A stored model is not the one that its manifest describes.")
    return found


def _parsed(stored: bytes) -> Backbone | Head:
    return parse_head(stored) if stored.startswith(MAGIC) else parse_backbone(stored)


# Recomputing epsilon takes milliseconds and depends on the time only through the model's age.
_verify_certificate = lru_cache(maxsize=64)(verify_certificate)


@lru_cache(maxsize=256)
def _verify(found: _Stated, worker_keys: frozenset[bytes]) -> None:
    envelope = parse_envelope(found.envelope)
    signer = next((key for key in worker_keys if key_id(key) == envelope.signatures[0][0]), b"")
    verify_envelope(envelope, PayloadType.MANIFEST, signer)
