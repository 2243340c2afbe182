"""A second app process: records events from several threads, prints each id and place once it is signed."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vault.db import Database
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.tlog import log
from vault.tlog.sequencer import Sequencer


def main(url: str, count: int, threads: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
    database = Database(url)
    sequencer = Sequencer(
        database, VerifierKey("log.example/vault", private.public_key().public_bytes_raw()), private.sign
    )
    sequencer.start()

    def one(n: int) -> None:
        with database.transaction() as session:
            pending = log.append(session, LeafKind.ANSWER, {"n": n}, {"who": "child"})
        place = sequencer.wait(pending.id, 20)
        sys.stdout.write(f"{pending.id} {place}\n")
        sys.stdout.flush()

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, range(count)):
            pass
    sequencer.stop()
    database.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 4)
