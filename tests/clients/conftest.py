"""A real service on loopback for the clients: keys made by the operator's own code, the app as it is shipped."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.client_kit import PURCHASE, Service, Tamper
from twinvault.api import Api
from twinvault.company import Company
from twinvault.owner import Owner
from twinvault.profile import read_trust
from vault.app import create_app
from vault.clock import SystemClock
from vault.ops.site import Site, set_up
from vault.parties import companies
from vault.seal.kit import RecoveryKit
from vault.settings import AppSettings, WorkerSettings
from vault.twin.children import Children
from vault.worker import open_worker, run_once


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The shipped app under uvicorn on a free port, over SQLite; one for all tests, each with its own vaults."""
    with _serving(tmp_path_factory.mktemp("site") / "site") as found:
        yield found


@pytest.fixture
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose log holds one test's events only: others forge some into theirs."""
    with _serving(tmp_path_factory.mktemp("own") / "site") as found:
        yield found


@pytest.fixture
def daily_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that makes a row of every day."""
    with _serving(tmp_path_factory.mktemp("daily") / "site", "daily") as found:
        yield found


@contextmanager
def _serving(folder: Path, cadence: str = "monthly") -> Iterator[Service]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    site = Site(folder)
    set_up(
        site, issuer=url, log_origin="test.example/log", database_url=None, shortkeys_url=None,
        now=SystemClock().now(), cadence=cadence,
    )  # fmt: skip
    app = create_app(AppSettings.model_validate(_values(site, "app")))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    for _ in range(600):
        if server.started or not thread.is_alive():
            break
        time.sleep(0.05)
    assert server.started
    yield Service(site, app, read_trust(site.trust_file), url)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def work(service: Service) -> Iterator[Callable[[], None]]:
    """Do every job that waits, as the worker process does."""
    with working(service) as found:
        yield found


@contextmanager
def working(service: Service) -> Iterator[Callable[[], None]]:
    settings = WorkerSettings.model_validate(_values(service.site, "worker"))
    with Children() as children, open_worker(settings, children, SystemClock()) as worker:

        def work() -> None:
            while run_once(worker):
                pass

        yield work


@pytest.fixture
def daily_work(daily_service: Service) -> Iterator[Callable[[], None]]:
    """The same for the service with daily rows."""
    with working(daily_service) as found:
        yield found


def _values(site: Site, process: str) -> dict[str, str]:
    return {name.removeprefix("VAULT_").lower(): value for name, value in site.environment(process).items()}


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
