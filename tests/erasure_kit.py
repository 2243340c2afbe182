"""A service whose owner may erase, and eyes that look at every table afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy

from tests.answer_kit import Service
from tests.twin.worker_kit import OCTOBER, SEPTEMBER
from tests.vault_kit import PURCHASE
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import b64u
from vault.erasure.erase import Erased, ErasureRequest, erase
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.trace import Period
from vault.seal.dsse import Envelope
from vault.seal.erasure import Author, Order, Scope, sign_order, verify_order
from vault.seal.ids import CompartmentId, new_id
from vault.store import shortkeys as short_key_store


@dataclass
class Erasing(Service):
    """An owner with traces, rows and consents, who erases as the route does."""

    september: Period = SEPTEMBER
    october: Period = OCTOBER

    def scope(self, *periods: Period) -> Scope:
        """Return the compartments of these months, or the whole person."""
        named = tuple(sorted(self.owner.compartment(PURCHASE, period).id for period in periods))
        return Scope(self.owner.vault, named or None)

    def order(self, scope: Scope, **changed: Any) -> Envelope:
        values = {"erasure_id": new_id(), "scope": scope, "reason": "", "issued_at": unix_s(self.clock.at)}
        return sign_order(Order(**values | changed), self.owner.key)

    def erase(self, scope: Scope, order: Envelope | None = None, **how: Any) -> Erased:
        order = order or self.order(scope)
        said = verify_order(order, self.owner.key.public_key, self.owner.vault)
        signed = self.as_each_subject() if scope.whole else {}
        asked = ErasureRequest(said.erasure_id, said.scope, Author.OWNER, said.reason, order.digest, signed=signed)
        with self.database.transaction() as session:
            found = erase(session, self.shortkeys, asked, service=self.service, now=self.clock.at, **how)
        short_key_store.delete_scheduled(self.database, self.shortkeys)
        return found

    def renew_without(self, version: ConsentVersion, *gone: CompartmentId) -> ConsentVersion:
        """Renew a consent with keys of every compartment but those that were erased."""
        from vault.consent.handovers import REQUIRED

        after = self.next(version, ConsentEvent.RENEWED)
        every = [c for page, _ in self.owner.pages.values() for c in page.compartments.values()]
        left = [c for c in every if c.id not in gone and version.terms.data_from <= c.period <= version.terms.data_to]
        keys = tuple(self.handover(kind, after, compartments=left) for kind in sorted(REQUIRED[after.terms.kind]))
        from vault.consent import changes
        from vault.consent.changes import Submission

        with self.database.transaction() as session:
            sent = Submission(self.signed(after), keys)
            changes.amend(session, sent, vault_id=self.owner.vault, custody=self.custody, now=self.clock.at)
        return after


def mentions(database: Database, *names: bytes) -> dict[str, set[str]]:
    """Return, by table and column, which of these names (raw, base64url or hex) any row holds."""
    spelled = {name: {name, b64u(name).encode(), name.hex().encode()} for name in names}
    found: dict[str, set[str]] = {}
    with database.snapshot() as session:
        connection = session.connection()
        for table in sqlalchemy.inspect(connection).get_table_names():
            result = connection.exec_driver_sql(f'SELECT * FROM "{table}"')
            columns = list(result.keys())
            for row in result:
                for column, value in zip(columns, row, strict=True):
                    data = value.encode() if isinstance(value, str) else value
                    if not isinstance(data, bytes | memoryview):
                        continue
                    for name, texts in spelled.items():
                        if any(text in bytes(data) for text in texts):
                            found.setdefault(f"{table}.{column}", set()).add(b64u(name))
    return found
