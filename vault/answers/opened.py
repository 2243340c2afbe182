"""Opened imprint rows, kept in memory while the consent version that opened them is in force."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, assert_never

from sqlmodel import Session

from vault.imprint.block import DAILY, Block, parse_block
from vault.imprint.features import Cadence, FeatureMap
from vault.imprint.rows import MONTHLY, Row, parse_row
from vault.keys.serving import Serving
from vault.policy.permits import Permit
from vault.schema.trace import Period, period_of, periods_from
from vault.seal.errors import SealError
from vault.seal.ids import CompartmentId, ConsentId
from vault.seal.row import open_row, verify_row
from vault.seal.row import parse_row as parse_sealed
from vault.twin.infer import Reading, month_number, read, read_days
from vault.twin.reader import MAX_MONTHS, Backbone, maps_of
from vault.twin.release import Model
from vault.twin.rows import Place, StoredRow, names_for, rows_for

_MAX_CONSENTS: Final = 2048
_ELSEWHERE: Final = "A stored imprint row is not the one that its place says."


@dataclass(frozen=True, slots=True)
class _Opened:
    """What one version of a consent has opened, by the digest of the sealed row, and what was last read in it.

    Of daily rows, which are many, only what was read in them is kept.
    """

    version: int
    rows: dict[bytes, Row] = field(default_factory=dict)
    readings: dict[tuple[bytes, date, tuple[bytes, ...]], Reading] = field(default_factory=dict)


@dataclass(frozen=True)
class _Wanted:
    """What is to be read: rows by digest, and the keys that open them."""

    backbone: Backbone
    feature_map: FeatureMap
    as_of: date
    months: Sequence[Period]
    digests: Sequence[bytes]
    keys: Mapping[CompartmentId, bytes] = field(repr=False)


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
        self,
        session: Session,
        permit: Permit,
        model: Model[Backbone],
        feature_map: FeatureMap,
        *,
        as_of: date,
        now: datetime,
    ) -> tuple[list[bytes], Reading]:
        """Return the releases in force that the consent opens and the map describes, and what the model reads in them.

        Args:
            session: The transaction in which the consent was just read.
            permit: To answer one question; one category.
            model: The model that answers.
            feature_map: The map of that category.
            as_of: The day for which the twin speaks; only the `MAX_MONTHS` months before its own matter, and of
                daily rows that month too.
            now: The current time.

        Raises:
            KeysGone: The keys were taken away.
            KeysRefused: They are not for this permit.
            SealError: A row is not the worker's, was altered, or is not the one its place says.
        """
        keys = self._serving.imprint_keys(session, permit, now)
        months, category, opened = _months(permit, as_of, feature_map.cadence), feature_map.category, self._of(permit)
        named = names_for(session, permit.vault_id, category, months[0], months[-1]) if months else []
        read_here = {mapped.digest for mapped in maps_of(feature_map, model.backbone)}
        mine = [
            row
            for row in named
            if row.compartment_id in keys and row.map_digest in read_here and row.mechanism in {MONTHLY, DAILY}
        ]
        digests = tuple(row.digest for row in mine)
        name = model.manifest.model_sha256, _asked(as_of, feature_map.cadence), digests
        reading = opened.readings.get(name)
        if reading is None:
            reading = self._reading(session, permit, _Wanted(model.backbone, feature_map, as_of, months, digests, keys))
            opened.readings.clear()
            opened.readings[name] = reading
        return [row.release_id for row in mine], reading

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

    def _reading(self, session: Session, permit: Permit, wanted: _Wanted) -> Reading:
        mapped, known = wanted.feature_map, self._of(permit).rows
        missing = set(wanted.digests) - known.keys()
        found = rows_for(session, permit.vault_id, mapped.category, wanted.months) if missing else []
        opened = {
            item: self._payload(item, wanted.keys[item.compartment_id], permit)
            for item in found
            if item.digest in missing
        }
        match mapped.cadence:
            case Cadence.MONTHLY:
                known |= {item.digest: _month(item, payload) for item, payload in opened.items()}
                mine = [known[digest] for digest in wanted.digests]
                return read(wanted.backbone, mapped, mine, period_of(wanted.as_of))
            case Cadence.DAILY:
                blocks = [_block(item, payload) for item, payload in opened.items()]
                return read_days(wanted.backbone, mapped, blocks, wanted.as_of)
            case _ as other:
                assert_never(other)

    def _payload(self, stored: StoredRow, key: bytes, permit: Permit) -> bytes:
        sealed = parse_sealed(stored.sealed)
        header = sealed.header
        place = header.vault, header.compartment, header.release, header.index
        payload = open_row(verify_row(sealed, *self._worker_keys), key)
        if place != (permit.vault_id, stored.compartment_id, stored.release_id, stored.index):
            raise SealError(_ELSEWHERE)
        return payload


def _month(stored: StoredRow, payload: bytes) -> Row:
    row = parse_row(payload)
    if (row.release_id, row.index, row.period) != (stored.release_id, stored.index, stored.period):
        raise SealError(_ELSEWHERE)
    return row


def _block(stored: StoredRow, payload: bytes) -> Block:
    block = parse_block(payload)
    place = Place(block.first, len(block.values), block.start)
    if (block.release_id, place, period_of(block.first)) != (stored.release_id, stored.place, stored.period):
        raise SealError(_ELSEWHERE)
    return block


def _asked(as_of: date, cadence: Cadence) -> date:
    """Return the first of the days for which a twin says the same: monthly rows know months only."""
    return as_of.replace(day=1) if cadence is Cadence.MONTHLY else as_of


def _months(permit: Permit, as_of: date, cadence: Cadence) -> list[Period]:
    """Return the months of the permit that a backbone reads."""
    months = periods_from(permit.data_from, month_number(permit.data_to) - month_number(permit.data_from) + 1)
    asked, newest = month_number(period_of(as_of)), 1 if cadence is Cadence.MONTHLY else 0
    return [month for month in months if newest <= asked - month_number(month) <= MAX_MONTHS]
