"""The real app process, killed with SIGKILL in the middle of uploads, consents and answers, and started again."""

from __future__ import annotations

import operator
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from tests.client_kit import purchases
from tests.http_kit import CODES, PURCHASE, PURPOSE, House, new_databases
from tests.process_kit import Process, app_process
from tests.waiting import until
from twinvault.auditor import Auditor
from twinvault.company import Company
from twinvault.device import Device
from twinvault.owner import Owner
from vault.consent.models import handover
from vault.db import Database
from vault.encoding import b64u
from vault.errors import VaultError
from vault.schema.question import NextChoice
from vault.seal.ids import ConsentId
from vault.store import shortkeys
from vault.tlog import log

_ASKED = NextChoice(PURCHASE, PURPOSE, 3)  # ranks nothing, so no limit over all companies ends it
_KILLS = int(os.environ.get("TWINVAULT_KILLS", "3"))


@pytest.fixture(params=["sqlite", "postgresql"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Process, House]]:
    urls: tuple[str | None, str | None] = (None, None)
    if request.param == "postgresql":
        urls = new_databases(request.getfixturevalue("postgresql_server"))
    with app_process(tmp_path, *urls) as running:
        yield running


@dataclass
class Clients:
    """An owner and a company that go on until the app dies, and what they were told had happened."""

    house: House
    owner: Owner
    company: Company
    consent: ConsentId
    uploads: int = 0
    given: set[ConsentId] = field(default_factory=set)
    withdrawn: set[ConsentId] = field(default_factory=set)
    bundles: list[bytes] = field(default_factory=list)

    @property
    def told(self) -> tuple[int, int, int]:
        """How many uploads, withdrawals and answers were acknowledged."""
        return self.uploads, len(self.withdrawn), len(self.bundles)

    def upload(self) -> None:
        trace, device = purchases(1, month=3)[0], Device(self.owner.profile, self.house.api())
        with closing(device):
            while True:
                device.add([replace(trace, id=secrets.token_hex(8))])
                device.flush(self._acknowledged)

    def _acknowledged(self, _traces: int) -> None:
        # An upload holds one batch, and what an earlier crash left in the spool with it.
        self.uploads += 1

    def give_and_withdraw(self) -> None:
        while True:
            made = self.house.consent(self.owner, self.company)
            self.given.add(made)
            self.owner.withdraw(made)
            self.withdrawn.add(made)

    def ask(self) -> None:
        while True:
            self.bundles.append(self.company.ask(self.consent, _ASKED).bundle)

    def until_the_app_dies(self, act: Callable[[], None]) -> None:
        with suppress(VaultError, httpx.HTTPError):
            act()


@pytest.mark.slow
def test_kill_minus_nine_loses_nothing_promised_and_releases_nothing_unlogged(
    process: tuple[Process, House], tmp_path: Path
) -> None:
    running, house = process
    owner, company, rng = house.owner_with_twin((1, 3)), house.company(), random.Random(9)
    stored = len(_rows(house.database, "batch"))
    clients = Clients(house, owner, company, house.consent(owner, company, quota_per_month=100_000))
    for _ in range(_KILLS):
        acts = (clients.upload, clients.give_and_withdraw, clients.ask)
        threads = [threading.Thread(target=clients.until_the_app_dies, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        before = clients.told
        until(lambda before=before: all(map(operator.gt, clients.told, before)), "each was told of another success")
        time.sleep(rng.uniform(0.0, 1.5))  # nothing that is asserted depends on how long
        running.kill()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        running.start()
    assert clients.bundles
    assert clients.withdrawn
    known = {item.id: item for item in owner.consents()}
    assert clients.given <= known.keys()
    assert not any(known[ended].live for ended in clients.withdrawn)
    assert len(_rows(house.database, "batch")) - stored >= clients.uploads > 0
    _every_answer_is_in_the_later_log(house, clients.bundles, tmp_path)
    _every_deletion_is_done(house)
    _the_log_names_nobody(running.log.read_bytes(), clients)


def _every_answer_is_in_the_later_log(house: House, bundles: list[bytes], folder: Path) -> None:
    Auditor.register(folder / "auditor", house.service.trust, name="Audit")
    auditor = Auditor.load(folder / "auditor", house.api())
    for bundle in bundles:
        # Also asks the running log for the proof that each checkpoint seen before is a prefix of it.
        assert auditor.verify_bytes(bundle).failures == ()
    with house.database.snapshot() as session:
        assert log.head(session)[0] >= len(bundles)


def _every_deletion_is_done(house: House) -> None:
    """What a crash left scheduled was deleted at the next start, before anything was served."""
    assert _rows(house.database, "short_key_deletion") == []
    with house.database.snapshot() as session:
        live = session.connection().execute(select(handover.c.digest).where(handover.c.live)).scalars().all()
        ended = session.connection().execute(select(handover.c.digest).where(~handover.c.live)).scalars().all()
    short = house.service.app.state.shortkeys
    assert ended
    assert not shortkeys.read(short, [shortkeys.handover_key(digest) for digest in ended])
    assert len(shortkeys.read(short, [shortkeys.handover_key(digest) for digest in live])) == len(live)


def _the_log_names_nobody(written: bytes, clients: Clients) -> None:
    owner = clients.owner
    tokens = [owner._auth._token, clients.company._auth._token]
    keys = [owner.profile.text(name) for name in ("device_seed", "vault")]
    ids = [b64u(name) for name in (clients.consent, *clients.given)]
    hidden = [*tokens, *keys, *ids, owner.vault.hex(), *CODES, "bacon", "pd:Purchase"]
    assert b"request.done" in written
    for value in hidden:
        assert len(value) > 4
        assert value.encode() not in written
        assert value[: max(10, len(value) // 2)].encode() not in written or len(value) < 10


def _rows(database: Database, table: str) -> list[Any]:
    with database.snapshot() as session:
        return list(session.connection().execute(text(f"SELECT * FROM {table}")))
