"""kill -9 while uploads are being accepted: what was acknowledged is there whole, and nothing is there in half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.vault_kit import Owner, begin
from tests.waiting import until_alone
from vault.db import Database
from vault.seal.upload import parse_upload
from vault.store import batches

_ACCEPTOR = """
import sys
from pathlib import Path
from tests.vault_kit import NOW
from vault.db import Database
from vault.ingest.accept import accept
from vault.parties.caller import DeviceCaller
from vault.seal.upload import parse_upload
database = Database(sys.argv[1])
caller = DeviceCaller(bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3]))
for path in sorted(Path(sys.argv[4]).iterdir()):
    with database.transaction() as session:
        accept(session, caller, parse_upload(path.read_bytes()), now=NOW)
    print(path.name, flush=True)
sys.stdin.read()  # however fast it was, it is there to be killed
"""


@pytest.mark.parametrize("acknowledged_before_kill", [1, 7, 20])
def test_kill_while_accepting(
    database: Database, shortkeys: Database, tmp_path: Path, acknowledged_before_kill: int
) -> None:
    owner, source = begin(database, shortkeys)
    folder = tmp_path / "uploads"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number:04}").write_bytes(source.upload(owner.compartment(), count=3))
    acceptor = subprocess.Popen(
        [
            sys.executable, "-c", _ACCEPTOR, database.url.render_as_string(hide_password=False), owner.vault.hex(),
            source.device.id.hex(), str(folder),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env=dict(os.environ),
    )  # fmt: skip
    assert acceptor.stdin is not None
    assert acceptor.stdout is not None
    acknowledged = [acceptor.stdout.readline().strip() for _ in range(acknowledged_before_kill)]
    acceptor.send_signal(signal.SIGKILL)
    acknowledged += acceptor.stdout.read().split()
    assert acceptor.wait(30) == -signal.SIGKILL
    acceptor.stdin.close()
    acceptor.stdout.close()
    until_alone(database)
    stored = stored_batches(database, owner)
    sent = [b.encoded for path in sorted(folder.iterdir()) for b in parse_upload(path.read_bytes()).batches]
    assert len(stored) % 3 == 0, "an upload is stored whole or not at all"
    assert stored == sent[: len(stored)]
    assert len(stored) >= 3 * len(acknowledged)
    with database.snapshot() as session:
        uploads = (
            session.connection().execute(text("SELECT count(*) FROM log_entry WHERE kind = 'upload'")).scalar_one()
        )
        heads = batches.device_heads(session, owner.vault, source.device.id)
    assert uploads == heads.version == len(stored) // 3
    assert [head.seq for head in heads.heads.values()] == [len(stored)]


def stored_batches(database: Database, owner: Owner) -> list[bytes]:
    found: list[bytes] = []
    cursor = 0
    with database.snapshot() as session:
        while page := batches.read(session, owner.vault, owner.compartment().id, after=cursor):
            found += [batch.encoded for batch in page]
            cursor = page[-1].id
    return found
