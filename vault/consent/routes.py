"""Routes of an owner's consents. Each change answers only when it is logged and the keys it took away are gone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field

from vault.consent import changes, consents, handovers
from vault.consent.changes import Change
from vault.consent.consents import StoredVersion
from vault.consent.errors import UnknownConsent
from vault.consent.handovers import Custody
from vault.consent.versions import Submission
from vault.encoding import b64u, parse_b64u
from vault.http.edge import ClockDep, DatabaseDep, documented, read_late
from vault.parties.routes import OwnVault
from vault.schema.consent import ConsentEvent
from vault.seal.dsse import parse_envelope
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId
from vault.store import shortkeys
from vault.tlog.errors import NotInLog
from vault.tlog.shown import receipt_json

consent_router = APIRouter(prefix="/v1/vaults/{vault}/consents", tags=["consents"])


class VersionBody(BaseModel):
    """A signed version with what belongs to it; binary fields are base64url without padding."""

    envelope: str
    handovers: Annotated[list[str], Field(max_length=2)] = []
    certificate: str = ""
    request: str = ""

    def submission(self) -> Submission:
        """Return the parsed fields; nothing is verified yet."""
        return Submission(
            parse_envelope(parse_b64u(self.envelope)),
            tuple(parse_b64u(item) for item in self.handovers),
            parse_envelope(parse_b64u(self.certificate)) if self.certificate else None,
            self.request,
        )


async def _custody(request: Request) -> Custody:
    custody = request.app.state.custody
    assert isinstance(custody, Custody)
    return custody


CustodyDep = Annotated[Custody, Depends(_custody)]
LateBody = Annotated[VersionBody, read_late(VersionBody)]
_VERSION = documented(takes="application/json", body=VersionBody.model_json_schema())


@consent_router.post("", status_code=201, openapi_extra=_VERSION)
def give(
    *, owner: OwnVault, body: LateBody, custody: CustodyDep, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Give a consent: version 1, certificate, handovers, and the request if a company asked."""
    submission = body.submission()
    with database.transaction() as session:
        change = changes.give(session, submission, vault_id=owner.vault_id, custody=custody, now=clock.now())
    return _acknowledged(request, database, custody, change)


@consent_router.post("/{consent}/versions", status_code=201, openapi_extra=_VERSION)
def append_version(
    *, consent: str, owner: OwnVault, body: LateBody, custody: CustodyDep, request: Request, database: DatabaseDep,
    clock: ClockDep,
) -> dict[str, Any]:  # fmt: skip
    """Narrow or renew a consent with new handovers, or withdraw it; the signed version says which."""
    submission = body.submission()
    signed = changes.verify_by_person(
        submission.envelope, ConsentEvent.NARROWED, ConsentEvent.RENEWED, ConsentEvent.WITHDRAWN
    )
    if signed.consent_id != parse_id(consent):
        raise UnknownConsent("The version belongs to another consent than the one in the address.")
    with database.transaction() as session:
        if signed.event is ConsentEvent.WITHDRAWN:
            change = changes.withdraw(session, submission.envelope, vault_id=owner.vault_id, now=clock.now())
        else:
            change = changes.amend(session, submission, vault_id=owner.vault_id, custody=custody, now=clock.now())
    return _acknowledged(request, database, custody, change)


@consent_router.get("")
def list_consents(owner: OwnVault, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return every consent of the vault with all its versions, ended ones included.

    `keys` is false where nothing can be opened under it: it ended, or erasing took its keys away.
    """
    now = clock.now()
    with database.snapshot() as session:
        found = consents.list_for(session, owner.vault_id)
        histories = consents.histories(session, owner.vault_id)
        holding = consents.live_among(session, [item.consent_id for item in found])
    return {
        "consents": [
            {
                "consent": b64u(item.consent_id),
                "kind": item.current.terms.kind,
                "grantee": item.current.terms.grantee,
                "event": item.current.event,
                "live": item.live,
                "keys": item.consent_id in holding,
                "quota_left": item.quota_left(now),
                "versions": [_version_json(stored) for stored in histories[item.consent_id]],
            }
            for item in found
        ]
    }


@consent_router.get("/{consent}/versions/{version}/receipt")
def receipt(
    consent: str, version: Annotated[int, Path(ge=1, le=2**31 - 1)], owner: OwnVault, database: DatabaseDep
) -> dict[str, Any]:
    """Return one signed version, whoever caused it, with the proof that the log has it."""
    with database.snapshot() as session:
        mine = consents.get_own(session, ConsentId(parse_id(consent)), owner.vault_id)
        stored = next((kept for kept in consents.history(session, mine.consent_id) if kept.version == version), None)
        try:
            proof = receipt_json(session, stored.leaf_id) if stored else None
        except NotInLog:
            proof = None
        if stored is None or proof is None:
            raise UnknownConsent("The log shows no such version of this consent.")
    return {"envelope": b64u(stored.envelope), "receipt": proof}


@consent_router.get("/{consent}/handovers")
def list_handovers(consent: str, owner: OwnVault, custody: CustodyDep, database: DatabaseDep) -> dict[str, Any]:
    """Return the signed records through which the service's keys hold this consent's keys, each with its receipt.

    The owner's handover comes first, then every reseal; nothing that is sealed is shown.
    """
    with database.snapshot() as session:
        mine = consents.get_own(session, ConsentId(parse_id(consent)), owner.vault_id)
        chains = handovers.chains(session, custody.short_keys, mine.consent_id, mine.current.version)
        return {
            "handovers": [
                {
                    "keys": kind,
                    "steps": [
                        {"envelope": b64u(envelope.encoded), "receipt": receipt_json(session, leaf_id)}
                        for envelope, leaf_id in steps
                    ],
                }
                for kind, steps in chains.items()
            ]
        }


def _acknowledged(request: Request, database: DatabaseDep, custody: Custody, change: Change) -> dict[str, Any]:
    """Delete the keys that went, wait for the log, and return the receipt: only now is the change acknowledged."""
    custody.forget(ConsentId(change.version.consent_id))
    shortkeys.delete_scheduled(database, custody.short_keys)
    state = request.app.state
    state.sequencer.wait(change.pending.id, state.settings.checkpoint_wait_s)
    with database.snapshot() as session:
        proof = receipt_json(session, change.pending.id)
    return {
        "consent": b64u(change.version.consent_id),
        "version": change.version.version,
        "new_epoch_needed": list(change.new_epoch_needed),
        "receipt": proof,
    }


def _version_json(stored: StoredVersion) -> dict[str, Any]:
    return {"version": stored.version, "envelope": b64u(stored.envelope), "request": stored.request}
