"""Witnesses from the log's side: ask each to cosign the newest checkpoint, keep the newest that enough of them did.

Nobody waits for a witness: they are asked beside the sequencer, and a bundle joins the last cosigned
checkpoint to its own by a consistency proof. A verifier's trust file says how old that may be.

Source: https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
import structlog
from sqlalchemy import select
from sqlmodel import Session

from vault.db import Database, Prepared
from vault.encoding import JsonObject, dump_json, parse_json
from vault.errors import MalformedInput, VaultError
from vault.proof.checkpoint import parse_decimal, verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.merkle import HashAt, consistency_proof
from vault.proof.note import COSIGNATURE, VerifierKey, parse_note, parse_verifier_key
from vault.proof.witness import (
    AddCheckpoint,
    Witnessed,
    WitnessPolicy,
    add_cosignature,
    verify_cosignatures,
)
from vault.tlog import log
from vault.tlog.models import log_witnessed

_FORMAT: Final = "twinvault-witnesses/v1"
DEFAULT_MAX_AGE_S: Final = 600

_TIMEOUT_S: Final = 5.0
_SIZE_TYPE: Final = "text/x.tlog.size"
_NEWEST = Prepared(select(log_witnessed.c.size, log_witnessed.c.note))

_log = structlog.get_logger()


class BadWitnesses(VaultError):
    """A file of witnesses that cannot be used."""

    slug = "bad-witnesses"
    title = "Witnesses are not acceptable"
    status = 400


@dataclass(frozen=True)
class WitnessSite:
    """Where a witness is asked.

    Args:
        key: Its key.
        url: What `/add-checkpoint` is appended to.
    """

    key: VerifierKey
    url: str


@dataclass(frozen=True)
class WitnessPlan:
    """Whom the log asks, and what its clients demand.

    Args:
        sites: Every witness.
        quorum: How many cosignatures make a checkpoint worth keeping.
        max_age_s: How old the witnesses' view may be, for the trust file.
    """

    sites: tuple[WitnessSite, ...]
    quorum: int
    max_age_s: int

    @property
    def policy(self) -> WitnessPolicy | None:
        """What clients pin; None as long as there is no witness."""
        if not self.sites:
            return None
        return WitnessPolicy(tuple(site.key for site in self.sites), self.quorum, self.max_age_s)


def parse_plan(data: bytes) -> WitnessPlan:
    """Read the operator's file of witnesses.

    Raises:
        BadWitnesses: It is not one.
    """
    try:
        record = parse_json(data)
        sites, quorum, max_age_s = record.get("witnesses"), record.get("quorum"), record.get("max_age_s")
        if not (isinstance(sites, list) and isinstance(quorum, int) and isinstance(max_age_s, int)):
            raise BadWitnesses("A file of witnesses has a quorum, max_age_s and a list of witnesses.")
        if record.get("format") != _FORMAT:
            raise BadWitnesses(f"The file of witnesses is not of the format {_FORMAT}.")
        plan = WitnessPlan(tuple(map(_site, sites)), quorum, max_age_s)
        _ = plan.policy
    except (MalformedInput, InvalidProof) as error:
        raise BadWitnesses(f"The file of witnesses cannot be used: {error.detail}") from error
    return plan


def dump_plan(plan: WitnessPlan) -> bytes:
    """Return the file's bytes."""
    record: JsonObject = {
        "format": _FORMAT,
        "quorum": plan.quorum,
        "max_age_s": plan.max_age_s,
        "witnesses": [{"key": site.key.text, "url": site.url} for site in plan.sites],
    }
    return dump_json(record)


class Witnesses:
    """Asks the witnesses of one plan; one round at a time.

    Args:
        log: The log's key.
        plan: Whom to ask.
        client: Reaches them; a plain one by default.
    """

    def __init__(self, log: VerifierKey, plan: WitnessPlan, client: httpx.Client | None = None) -> None:
        self._key = log
        self._plan = plan
        self._client = client or httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False)
        self._sizes: dict[str, int] = {}

    @classmethod
    def load(cls, path: Path, log: VerifierKey) -> Witnesses:
        """Read the plan from a file.

        Raises:
            BadWitnesses: It is not one.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadWitnesses(f"The file of witnesses {path.name} cannot be read.") from error
        return cls(log, parse_plan(data.strip()))

    def ask(self, database: Database) -> int:
        """Ask every witness to cosign the newest checkpoint, and keep it if enough do.

        Returns:
            How many cosigned.
        """
        with database.snapshot() as session:
            size, note = log.head(session)
            before = newest(session)
        if size == 0 or not self._plan.sites:
            return 0
        asked = before is not None and parse_note(before[1]).unverified_text == parse_note(note).unverified_text
        if before is not None and asked and self._count(before[1]) == len(self._plan.sites):
            return len(self._plan.sites)
        cosigned = note
        for site in self._plan.sites:
            try:
                cosigned = self._cosigned(database, site, size, note, cosigned)
            except (httpx.HTTPError, VaultError) as error:
                _log.warning("log.not_cosigned", key_name=site.key.name, error_type=type(error).__name__)
        count = self._count(cosigned)
        if count >= self._plan.quorum and (before is None or (before[0], self._count(before[1])) < (size, count)):
            with database.transaction() as session:
                _keep(session, size, cosigned)
        return count

    def _count(self, note: str) -> int:
        checkpoint = verify_checkpoint(note, self._key, self._key.name)
        return len(verify_cosignatures(note, checkpoint, [site.key for site in self._plan.sites]))

    def _cosigned(self, database: Database, site: WitnessSite, size: int, note: str, cosigned: str) -> str:
        """Return the note with one more witness's line.

        Raises:
            InvalidProof: The witness refuses, or its line is wrong.
        """
        response = self._post(database, site, self._sizes.get(site.url, 0), size, note)
        if response.status_code == httpx.codes.CONFLICT and response.headers.get("Content-Type") == _SIZE_TYPE:
            seen = parse_decimal(response.text.removesuffix("\n"))
            if seen > size:
                _log.error("log.witness_saw_more", key_name=site.key.name, tree_size=seen)
                raise InvalidProof("A witness has seen a longer log than this one: the database was set back.")
            response = self._post(database, site, seen, size, note)
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            _log.error("log.witness_saw_another", key_name=site.key.name, tree_size=size)
        if response.status_code != httpx.codes.OK:
            raise InvalidProof(f"The witness {site.key.name} refuses with status {response.status_code}.")
        longer = add_cosignature(cosigned, site.key, response.text)
        checkpoint = verify_checkpoint(longer, self._key, self._key.name)
        if site.key.name not in verify_cosignatures(longer, checkpoint, [site.key]):
            raise InvalidProof(f"The witness {site.key.name} answers without its cosignature.")
        self._sizes[site.url] = size
        return longer

    def _post(self, database: Database, site: WitnessSite, old_size: int, size: int, note: str) -> httpx.Response:
        proof: list[bytes] = []
        if 0 < old_size < size:
            with database.snapshot() as session:
                proof = log.consistency(session, old_size, size)
        body = AddCheckpoint(old_size, tuple(proof), note).body
        return self._client.post(f"{site.url.rstrip('/')}/add-checkpoint", content=body)


def newest(session: Session) -> tuple[int, str] | None:
    """Return size and note of the newest checkpoint that enough witnesses cosigned."""
    row = _NEWEST.one(session)
    return None if row is None else (row.size, row.note)


def witnessed(session: Session, size: int, hash_at: HashAt) -> Witnessed | None:
    """Return what shows that the tree of `size` leaves continues one that the witnesses saw.

    Args:
        session: A snapshot.
        size: A signed size, at least the witnessed one.
        hash_at: Reader of that tree.
    """
    found = newest(session)
    if found is None:
        return None
    seen, note = found
    return Witnessed(note, tuple(consistency_proof(seen, size, hash_at)) if seen < size else ())


def _keep(session: Session, size: int, note: str) -> None:
    sqlite = session.get_bind().dialect.name == "sqlite"
    dialect = sqlalchemy.dialects.sqlite if sqlite else sqlalchemy.dialects.postgresql
    row = {"size": size, "note": note}
    session.connection().execute(
        dialect.insert(log_witnessed)
        .values(id=1, **row)
        .on_conflict_do_update(index_elements=["id"], set_=row, where=log_witnessed.c.size <= size)
    )


def _site(item: object) -> WitnessSite:
    if not isinstance(item, dict) or set(item) != {"key", "url"}:
        raise BadWitnesses("Each witness has a key and a url.")
    url = str(item["url"])
    if httpx.URL(url).scheme not in {"http", "https"}:
        raise BadWitnesses("A witness's url begins with https:// or http://.")
    return WitnessSite(parse_verifier_key(str(item["key"]), COSIGNATURE), url)
