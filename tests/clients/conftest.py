"""A real service on loopback for the clients: keys made by the operator's own code, the app as it is shipped."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from tests.client_kit import PURCHASE, Service, Tamper
from tests.clients.destination_kit import Mailbox, Webhook, listening
from tests.http_kit import running_service
from tests.site_kit import working
from twinvault.api import Api
from twinvault.company import Company
from twinvault.destinations import Destinations
from twinvault.device import Device
from twinvault.owner import Owner
from twinvault.profile import Profile
from vault.clock import SystemClock
from vault.encoding import JsonObject, b64u
from vault.parties import companies
from vault.seal.kit import RecoveryKit
from vault.seal.signing import SigningKey, new_seed


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The shipped app under uvicorn on a free port, over SQLite; one for all tests, each with its own vaults."""
    with running_service(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose log holds one test's events only: others forge some into theirs."""
    with running_service(tmp_path_factory.mktemp("own")) as found:
        yield found


@pytest.fixture
def monthly_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that makes one sum of a month in place of a row of every day."""
    with running_service(tmp_path_factory.mktemp("monthly"), cadence="monthly") as found:
        yield found


@pytest.fixture(scope="session")
def work(service: Service) -> Iterator[Callable[[], None]]:
    """Do every job that waits, as the worker process does."""
    with working(service.site) as found:
        yield found


@pytest.fixture
def monthly_work(monthly_service: Service) -> Iterator[Callable[[], None]]:
    """The same for the service with monthly rows."""
    with working(monthly_service.site) as found:
        yield found


@pytest.fixture
def tamper() -> Iterator[Tamper]:
    found = Tamper()
    yield found
    found.close()


@pytest.fixture
def api(service: Service, tamper: Tamper) -> Iterator[Api]:
    """The client's way to the service, through a `Tamper` that passes everything on until told otherwise."""
    found = Api(service.url, transport=tamper, sleep=lambda _: None)
    yield found
    found.close()


@pytest.fixture
def new_owner(service: Service, api: Api, tmp_path: Path) -> Iterator[Callable[..., tuple[Owner, RecoveryKit]]]:
    """Begin vaults that only their recovery kit opens: no passphrase, so no stretching."""

    def begin(**changed: Any) -> tuple[Owner, RecoveryKit]:
        values: dict[str, Any] = {"passphrase": None, "categories": [PURCHASE], "api": api}
        made = Owner.init(tmp_path / f"vault-{secrets.token_hex(4)}", service.trust, **{**values, **changed})
        owners.append(made[0])
        return made

    owners: list[Owner] = []
    yield begin
    for made in owners:
        made.device.close()


@pytest.fixture
def company(service: Service, api: Api, tmp_path: Path) -> Company:
    """A registered company."""
    made, record = Company.register(tmp_path / "acme", service.trust, name="Acme", contact="a@acme.example", api=api)
    with service.app.state.database.transaction() as session:
        companies.register(session, record, now=SystemClock().now())
    return made


@pytest.fixture
def owner(new_owner: Callable[..., tuple[Owner, RecoveryKit]]) -> Owner:
    return new_owner()[0]


@pytest.fixture
def new_device(service: Service, tmp_path: Path) -> Iterator[Callable[[Owner], Device]]:
    """Enrol another device of an owner, with its own way to the service."""

    def enrol(owner: Owner) -> Device:
        seed = new_seed()
        owner.enrol(SigningKey(seed).public_key)
        record: JsonObject = {
            "vault": b64u(owner.vault),
            "owner_key": b64u(owner._keys.signer.public_key),
            "time_zone": owner.profile.text("time_zone"),
            "device_seed": b64u(seed),
        }
        folder = tmp_path / f"device-{secrets.token_hex(4)}"
        way = Api(service.url)
        made = Device(Profile.create(folder, service.trust, record), way, SystemClock())
        opened.append((made, way))
        return made

    opened: list[tuple[Device, Api]] = []
    yield enrol
    for made, way in opened:
        made.close()
        way.close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    box, loop = Mailbox(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(box, hostname="mail.test"), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = server.sockets[0].getsockname()[1]
    yield box, f"mailto://127.0.0.1:{port}/?from=vault@example.org&to=owner@example.org"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def kept(tmp_path: Path) -> Destinations:
    return Destinations(tmp_path)
