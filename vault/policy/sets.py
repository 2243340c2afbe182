"""Policy sets as the service keeps them: immutable, addressed by hash, one after the other, logged when published.

A process decides under one set from its start to its end: the newest that was published when it started.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import Select, select
from sqlmodel import Session

from vault.encoding import JsonObject, b64u
from vault.errors import VaultError
from vault.policy.models import policy_set as sets
from vault.proof.decision import PolicySet, load_shipped_policy_set, parse_policy_set
from vault.proof.leaf import LeafKind
from vault.tlog.log import Pending, append


class UnknownPolicySet(VaultError):
    """No policy set of that hash was ever in force here."""

    slug = "unknown-policy-set"
    title = "Unknown policy set"
    status = 404


class NotSuccessor(VaultError):
    """A policy set that does not follow the newest one here: its version is used, or another came in between."""

    slug = "not-successor"
    title = "Policy set does not follow the newest"
    status = 409


_NEWEST: Final[Select[tuple[bytes]]] = select(sets.c.source).order_by(sets.c.version.desc()).limit(1)


def publish(session: Session, policy_set: PolicySet) -> Pending | None:
    """Keep a policy set for ever and log it; every process does so before its first decision.

    Args:
        session: An open writing transaction.
        policy_set: The rules about to be in force.

    Returns:
        Its leaf, or None if it was published before.

    Raises:
        NotSuccessor: Another set than the newest one here is its predecessor. The first set of an
            installation may be of any version.
    """
    newest = find_newest(session)
    if (newest is None or _follows(policy_set, newest)) and _insert(session, policy_set):
        public: JsonObject = {
            "policy_set": b64u(policy_set.sha256),
            "version": policy_set.version,
            "predecessor": b64u(policy_set.predecessor),
        }
        return append(session, LeafKind.POLICY_SET, public, {})
    _refuse_unless_kept(session, policy_set)
    return None


def find_newest(session: Session) -> PolicySet | None:
    """Return the newest published set, if one was ever published."""
    source = session.connection().execute(_NEWEST).scalar()
    return None if source is None else parse_policy_set(source)


def choose(session: Session) -> PolicySet:
    """Return the set that a process starting now decides under; it publishes it before its first decision.

    That is the newest published one, or the one that this release ships where that follows it directly.
    Rules that an operator published are never replaced by a release.
    """
    newest, shipped = find_newest(session), load_shipped_policy_set()
    return shipped if newest is None or _follows(shipped, newest) else newest


def get(session: Session, sha256: bytes) -> bytes:
    """Return the bytes whose hash addresses a policy set; `parse_policy_set` reads them.

    Raises:
        UnknownPolicySet: None of that hash.
    """
    source: bytes | None = session.connection().execute(select(sets.c.source).where(sets.c.sha256 == sha256)).scalar()
    if source is None:
        raise UnknownPolicySet("No policy set of this hash was in force here.")
    return source


def _insert(session: Session, policy_set: PolicySet) -> bool:
    """Say whether the row is new; it is not if another process was faster with this set or this version."""
    dialect = (
        sqlalchemy.dialects.sqlite if session.get_bind().dialect.name == "sqlite" else sqlalchemy.dialects.postgresql
    )
    statement = (
        dialect.insert(sets)
        .values(sha256=policy_set.sha256, version=policy_set.version, source=policy_set.source)
        .on_conflict_do_nothing()
        .returning(sets.c.sha256)
    )
    return session.connection().execute(statement).one_or_none() is not None


def _refuse_unless_kept(session: Session, policy_set: PolicySet) -> None:
    """Ask only after the newest set was read: in the other order a set published in between would be refused."""
    newest = find_newest(session)
    kept = select(sets.c.version).where(sets.c.sha256 == policy_set.sha256)
    if newest is not None and session.connection().execute(kept).scalar() is None:
        raise NotSuccessor(
            f"The newest set here has version {newest.version} and address {b64u(newest.sha256)}; "
            f"a new one needs version {newest.version + 1} and that address as its predecessor."
        )


def _follows(policy_set: PolicySet, newest: PolicySet) -> bool:
    return (policy_set.version, policy_set.predecessor) == (newest.version + 1, newest.sha256)
