"""Opened imprint rows, kept in memory while the consent version that opened them is in force."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.imprint.features import FeatureMap
from vault.imprint.rows import Row, parse_row
from vault.keys.serving import Serving
from vault.policy.permits import Permit
from vault.schema.trace import Period, periods_from
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId
from vault.seal.row import Row as SealedRow
from vault.seal.row import VerifiedRow, open_row, verify_row
from vault.seal.row import parse_row as parse_sealed
from vault.twin.infer import Reading, month_number, read
from vault.twin.reader import MAX_MONTHS
from vault.twin.release import Model
from vault.twin.rows import StoredRow, names_for, rows_for

_MAX_CONSENTS: Final = 2048


@dataclass(frozen=True, slots=True)
class _Opened:
    """What one version of a consent has opened, by the digest of the sealed row, and what was last read in it."""

    version: int
    rows: dict[bytes, Row] = field(default_factory=dict)
    readings: dict[tuple[bytes, Period, tuple[bytes, ...]], Reading] = field(default_factory=dict)


class OpenedRows:
    """Opens the rows that a permit names, and those only.

    Args:
        serving: Opens the imprint keys.
        worker_keys: Every `processor-sign` key that the operator stated; others' rows are refused.
    """

    def __init__(self, serving: Serving, worker_keys: Collection[bytes]) -> None:
        self._serving = serving
        self._worker_keys = worker_keys
        self._consents: OrderedDict[ConsentId, _Opened] = OrderedDict()
        self._mutex = threading.Lock()

    def read(
        self, session: Session, permit: Permit, model: Model, feature_map: FeatureMap, *, before: Period, now: datetime
    ) -> tuple[list[Row], Reading]:
        """Return the rows in force that the consent opens and the map describes, and what the model reads in them.

        Args:
            session: The transaction in which the consent was just read.
            permit: To answer one question; one category.
            model: The model that answers.
            feature_map: The map of that category.
            before: The month for which the twin speaks; only the `MAX_MONTHS` before it matter.
            now: The current time.

        Raises:
            KeysGone: The keys were taken away.
            KeysRefused: They are not for this permit.
            SealError: A row is not the worker's, was altered, or is not the one its place says.
        """
        keys = self._serving.imprint_keys(session, permit, now)
        months, category, opened = _months(permit, before), feature_map.category, self._of(permit)
        named = names_for(session, permit.vault_id, category, months[0], months[-1]) if months else []
        mine = [digest for place, made_by, digest in named if place in keys and made_by == feature_map.digest]
        if not opened.rows.keys() >= set(mine):
            for item in rows_for(session, permit.vault_id, category, months):
                if item.digest in mine and item.digest not in opened.rows:
                    opened.rows[item.digest] = self._open(item, keys[item.compartment_id], permit)
        rows = [opened.rows[digest] for digest in mine]
        name = model.manifest.model_sha256, before, tuple(mine)
        reading = opened.readings.get(name)
        if reading is None:
            reading = read(model.backbone, feature_map, rows, before)
            opened.readings.clear()
            opened.readings[name] = reading
        return rows, reading

    def forget(self, consent_id: ConsentId) -> None:
        """Drop what a consent has opened from memory."""
        with self._mutex:
            self._consents.pop(consent_id, None)

    @property
    def versions(self) -> dict[ConsentId, int]:
        """The consents that have opened rows in memory, each with the version that opened them."""
        with self._mutex:
            return {consent_id: opened.version for consent_id, opened in self._consents.items()}

    def _of(self, permit: Permit) -> _Opened:
        with self._mutex:
            opened = self._consents.get(permit.consent_id)
            if opened is None or opened.version != permit.version:
                opened = _Opened(permit.version)
            self._consents[permit.consent_id] = opened
            self._consents.move_to_end(permit.consent_id)
            while len(self._consents) > _MAX_CONSENTS:
                self._consents.popitem(last=False)
        return opened

    def _open(self, stored: StoredRow, key: bytes, permit: Permit) -> Row:
        sealed = parse_sealed(stored.sealed)
        row = parse_row(open_row(self._verified(sealed), key))
        header = sealed.header
        place = (header.vault, header.compartment, header.release, header.index)
        if place != (permit.vault_id, stored.compartment_id, row.release_id, row.index) or row.period != stored.period:
            raise SealError("A stored imprint row is not the one that its place says.")
        return row

    def _verified(self, sealed: SealedRow) -> VerifiedRow:
        for worker_key in self._worker_keys:
            try:
                return verify_row(sealed, worker_key)
            except SealError:
                continue
        raise SealError("No worker that the operator stated signed this imprint row.")


def _months(permit: Permit, before: Period) -> list[Period]:
    """Return the months of the permit that a backbone reads."""
    months = periods_from(permit.data_from, month_number(permit.data_to) - month_number(permit.data_from) + 1)
    return [month for month in months if 0 < month_number(before) - month_number(month) <= MAX_MONTHS]
