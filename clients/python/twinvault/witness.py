"""A small witness: cosigns other people's logs, each checkpoint only if it continues the last one.

It keeps one file per log, the newest checkpoint that it cosigned, written to the disk before the
cosignature leaves. It shares nothing with the logs that it watches.

Source: https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from twinvault.api import ClientError
from twinvault.profile import write_private
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import b64u, dump_json, parse_json
from vault.errors import MalformedInput
from vault.proof.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.merkle import verify_consistency
from vault.proof.note import COSIGNATURE, VerifierKey, parse_note, parse_verifier_key
from vault.proof.witness import MAX_REQUEST_BYTES, AddCheckpoint, cosign, parse_add_checkpoint
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.signing import SEED_BYTES, SigningKey, new_seed

_FILE: Final = "witness.json"
_FORMAT: Final = "twinvault-witness/v1"
_LOCK: Final = ".lock"


class BadWitness(ClientError):
    """A folder that holds no witness, or that holds one already."""

    slug = "bad-witness"
    title = "Witness cannot be used"


@dataclass(frozen=True)
class Reply:
    """What the witness answers over HTTP."""

    status: HTTPStatus
    text: str
    media_type: str = "text/plain; charset=utf-8"


class Witness:
    """One witness in its folder; safe with several processes.

    Args:
        folder: Made by `init`.
        clock: Tells the time; the machine's own by default.
    """

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder = folder
        self._clock = clock or SystemClock()
        self._seed, self.key, self._logs = _load(folder)
        self._private = SigningKey(self._seed)
        self._mutex = threading.Lock()

    @classmethod
    def init(cls, folder: Path, name: str) -> Witness:
        """Make a witness's key.

        Args:
            folder: Where it will lie; made if missing.
            name: What it signs as, such as `witness.example/1`.

        Raises:
            BadWitness: There is one already.
            MalformedProof: The name holds a space or plus.
        """
        VerifierKey(name, bytes(32), COSIGNATURE)
        if (folder / _FILE).exists():
            raise BadWitness(f"{folder} holds a witness already.")
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder, name, new_seed(), [])
        return cls(folder)

    def watch(self, log: VerifierKey) -> Witness:
        """Cosign this log too.

        Raises:
            BadWitness: Another key is watched under its name: one of the two is not the log's.
        """
        with self._alone():
            _, _, self._logs = _load(self.folder)  # another process may have added one meanwhile
            if self._logs.setdefault(log.name, log) != log:
                raise BadWitness(f"Another key of {log.name} is watched already.")
            _save(self.folder, self.key.name, self._seed, [*self._logs.values()])
        return self

    def add_checkpoint(self, unverified_body: bytes) -> Reply:
        """Cosign a log's newer checkpoint, or say why not.

        Guarantees: no two checkpoints of one log are ever cosigned of which the larger does not continue the
            smaller, whatever is sent, by how many at once, and whenever the machine stops.
        """
        try:
            request = parse_add_checkpoint(unverified_body)
            origin = parse_checkpoint(parse_note(request.note).unverified_text).origin
        except MalformedProof as error:
            return Reply(HTTPStatus.BAD_REQUEST, f"{error.detail}\n")
        log = self._logs.get(origin)
        if log is None:
            return Reply(HTTPStatus.NOT_FOUND, "This witness does not watch that log.\n")
        try:
            checkpoint = verify_checkpoint(request.note, log, origin)
        except InvalidProof as error:
            return Reply(HTTPStatus.FORBIDDEN, f"{error.detail}\n")
        if request.old_size > checkpoint.size:
            return Reply(HTTPStatus.BAD_REQUEST, "The old size is above the checkpoint's.\n")
        with self._alone():
            return self._advance(log, request, checkpoint)

    def newest(self, origin_sha256: str) -> str | None:
        """Return the newest note cosigned for the log whose name has this hash in lowercase hex, or None."""
        known = {sha256(origin.encode()).hexdigest() for origin in self._logs}
        path = self.folder / f"{origin_sha256}.checkpoint"
        return path.read_text() if origin_sha256 in known and path.exists() else None

    def _advance(self, log: VerifierKey, request: AddCheckpoint, new: Checkpoint) -> Reply:
        path = self.folder / f"{sha256(log.name.encode()).hexdigest()}.checkpoint"
        seen = verify_checkpoint(path.read_text(), log, log.name) if path.exists() else None
        if request.old_size != (seen.size if seen else 0):
            return Reply(HTTPStatus.CONFLICT, f"{seen.size if seen else 0}\n", "text/x.tlog.size")
        try:
            _verify_growth(seen, new, request.proof)
        except InvalidProof as error:
            return Reply(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error.detail}\n")
        line = cosign(new, self.key, self._private.sign, unix_s(self._clock.now())).line
        # Only these two lines: whoever sends the request may add as many of unknown keys as a note can hold.
        signatures = parse_note(request.note).signatures
        signed = next(one for one in signatures if (one.name, one.key_id) == (log.name, log.key_id))
        write_private(path, f"{new.text}\n{signed.line}{line}".encode())
        return Reply(HTTPStatus.OK, line)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._mutex, (self.folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def server(witness: Witness, host: str, port: int) -> ThreadingHTTPServer:
    """Return an HTTP server for a witness; call its `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or int(length) > MAX_REQUEST_BYTES:
                self._send(Reply(HTTPStatus.BAD_REQUEST, "A request has a length, and not a large one.\n"))
            elif self.path != "/add-checkpoint":
                self._send(Reply(HTTPStatus.NOT_FOUND, "Only /add-checkpoint is served here.\n"))
            else:
                self._send(witness.add_checkpoint(self.rfile.read(int(length))))

        def do_GET(self) -> None:
            note = witness.newest(self.path.removeprefix("/").removesuffix("/checkpoint"))
            self._send(Reply(HTTPStatus.OK, note) if note else Reply(HTTPStatus.NOT_FOUND, "No such log here.\n"))

        def log_message(self, *_: object) -> None:
            """Say nothing: who asks is nobody's business."""

        def _send(self, reply: Reply) -> None:
            content = reply.text.encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.media_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer((host, port), Handler)


def _verify_growth(seen: Checkpoint | None, new: Checkpoint, proof: tuple[bytes, ...]) -> None:
    if seen is not None and seen.size:
        verify_consistency(seen.size, new.size, proof, seen.root, new.root)
    elif proof:
        raise InvalidProof("Nothing is proven from an empty log.")


def _load(folder: Path) -> tuple[bytes, VerifierKey, dict[str, VerifierKey]]:
    try:
        fields = Fields(parse_json((folder / _FILE).read_bytes()))
        if fields.text("format") != _FORMAT:
            raise BadWitness(f"{folder} holds no witness of a kind that this program knows.")
        seed = fields.binary("seed", size=SEED_BYTES)
        key = VerifierKey(fields.text("name"), SigningKey(seed).public_key, COSIGNATURE)
        logs = [parse_verifier_key(str(line)) for line in fields.items("logs")]
        fields.end()
    except OSError as error:
        raise BadWitness(f"There is no witness in {folder}; run `twinvault witness init` first.") from error
    except (MalformedInput, InvalidProof, SealError) as error:
        raise BadWitness(f"The witness in {folder} cannot be read: {error.detail}") from error
    return seed, key, {log.name: log for log in logs}


def _save(folder: Path, name: str, seed: bytes, logs: list[VerifierKey]) -> None:
    record = dump_json({"format": _FORMAT, "name": name, "seed": b64u(seed), "logs": [log.text for log in logs]})
    write_private(folder / _FILE, record + b"\n")
