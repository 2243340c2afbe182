"""Policy sets as the service keeps them: immutable, addressed by hash, logged when published."""

from __future__ import annotations

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import select
from sqlmodel import Session

from vault.encoding import b64u
from vault.errors import VaultError
from vault.policy.models import policy_set as sets
from vault.proof.decision import ENGINE, PolicySet
from vault.proof.leaf import LeafKind
from vault.tlog.log import Pending, append


class UnknownPolicySet(VaultError):
    """No policy set of that hash was ever in force here."""

    slug = "unknown-policy-set"
    title = "Unknown policy set"
    status = 404


def publish(session: Session, policy_set: PolicySet) -> Pending | None:
    """Keep a policy set for ever and log it; every process does so before its first decision.

    Args:
        session: An open writing transaction.
        policy_set: The rules about to be in force.

    Returns:
        Its leaf, or None if it was published before.
    """
    dialect = (
        sqlalchemy.dialects.sqlite if session.get_bind().dialect.name == "sqlite" else sqlalchemy.dialects.postgresql
    )
    statement = (
        dialect.insert(sets)
        .values(sha256=policy_set.sha256, source=policy_set.source)
        .on_conflict_do_nothing()
        .returning(sets.c.sha256)
    )
    if session.connection().execute(statement).one_or_none() is None:
        return None
    return append(session, LeafKind.POLICY_SET, {"policy_set": b64u(policy_set.sha256), "engine": ENGINE}, {})


def get(session: Session, sha256: bytes) -> bytes:
    """Return the bytes whose hash addresses a policy set; `parse_policy_set` reads them.

    Raises:
        UnknownPolicySet: None of that hash.
    """
    source: bytes | None = session.connection().execute(select(sets.c.source).where(sets.c.sha256 == sha256)).scalar()
    if source is None:
        raise UnknownPolicySet("No policy set of this hash was in force here.")
    return source
