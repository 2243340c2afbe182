"""The auditor's client: fetches bundles, verifies them offline against pinned keys, remembers how far the log had grown."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from twinvault.api import Api, ClientError
from twinvault.profile import Profile
from twinvault.receipts import CLASSIFIER, remember_checkpoint
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import JsonObject, b64u
from vault.proof.bundle import MAX_BUNDLE_BYTES, parse_bundle
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.deferred import Each
from vault.proof.errors import MalformedProof
from vault.proof.listing import parse_listing, verify_unchanged
from vault.proof.trust import TrustedRoot
from vault.proof.verify import Failure, Report, Step, verify_bundle
from vault.seal.audit import (
    MAX_CHOSEN,
    AuditRequest,
    ListingRequest,
    Registration,
    dump_registration,
    sign_audit_request,
    sign_listing_request,
)
from vault.seal.dsse import Envelope
from vault.seal.person import NONCE_BYTES
from vault.seal.signing import SEED_BYTES, SigningKey, new_seed
from vault.seal.version import Remembered


class UnreadableFile(ClientError):
    """A file that cannot be opened."""

    slug = "unreadable-file"
    title = "File cannot be read"


class Auditor:
    """Verifies bundles; with a profile it also notices a log that was rewritten between two of them.

    Args:
        trust: The pinned keys.
        profile: Remembers checkpoints; None to verify one file by itself.
        api: The service, to be asked for proofs that the log only grew; None to stay offline.
    """

    def __init__(self, trust: TrustedRoot, profile: Profile | None = None, api: Api | None = None) -> None:
        self._trust = trust
        self._profile = profile
        self._api = api

    @classmethod
    def register(cls, folder: Path, trust: TrustedRoot, *, name: str) -> tuple[Auditor, bytes]:
        """Make an auditor's key and pin a trust file in a new profile.

        Returns:
            The auditor, and the registration file that the operator needs.

        Raises:
            BadProfile: The folder exists.
        """
        seed = new_seed()
        record: JsonObject = {"kind": "auditor", "name": name, "key": b64u(seed)}
        profile = Profile.create(folder, trust, record)
        return cls(trust, profile), dump_registration(Registration(name, SigningKey(seed).public_key))

    @classmethod
    def load(cls, folder: Path, api: Api | None = None) -> Auditor:
        """Read an auditor's profile.

        Raises:
            BadProfile: There is none.
        """
        profile = Profile.load(folder)
        return cls(profile.trust, profile, api)

    @property
    def connection(self) -> Api:
        """The service.

        Raises:
            ClientError: It was made to stay offline.
        """
        if self._api is None:
            raise ClientError("Only a registered auditor fetches bundles; run `twinvault auditor register` first.")
        return self._api

    @property
    def trust(self) -> TrustedRoot:
        """The pinned keys."""
        return self._trust

    def fetch(self, first: int, last: int, clock: Clock | None = None) -> bytes:
        """Return the bundle of a range of leaves, not verified yet; the service logs the access.

        Args:
            first: First leaf index.
            last: Last leaf index; at most 10,000 leaves at a time.
            clock: Tells the time; the machine's own by default.

        Raises:
            ApiError: The service refuses: nobody registered this key, its time is over, or the log is shorter.
            ClientError: Without a profile and a connection there is no key and nobody to ask.
        """
        now_s = unix_s((clock or SystemClock()).now())
        request = AuditRequest(self._trust.issuer, secrets.token_bytes(NONCE_BYTES), now_s, first, last)
        return self._ask("bundle", lambda key: sign_audit_request(request, key))

    def fetch_listing(self, chosen: Sequence[bytes] = (), clock: Clock | None = None) -> bytes:
        """Return the listing of the engagement, not verified yet; the service logs the access.

        Args:
            chosen: Pseudonyms of consents to be opened from now on, at most 1,000 at a time.
            clock: Tells the time; the machine's own by default.

        Raises:
            ApiError: As for `fetch`; or the time of the engagement is not over, or it opens no more.
            ClientError: As for `fetch`.
        """
        now_s = unix_s((clock or SystemClock()).now())
        request = ListingRequest(self._trust.issuer, secrets.token_bytes(NONCE_BYTES), now_s, tuple(chosen))
        return self._ask("listing", lambda key: sign_listing_request(request, key))

    def choose(self, number: int = 0, rows: Sequence[bytes] = (), seen: bytes | None = None) -> bytes:
        """Let consents of the listing be opened; return the listing.

        Args:
            number: How many of those that are not open yet, picked by chance on this machine; all where fewer are left.
            rows: Pseudonyms of further consents.
            seen: The listing as it was fetched before.

        Raises:
            ApiError: As for `fetch_listing`.
            ClientError: As for `fetch_listing`.
            InvalidProof: What the service sent is no listing, or differs from the one that was chosen from.
        """
        data = self.fetch_listing()
        shown = parse_listing(data)
        if seen is not None:
            verify_unchanged(parse_listing(seen), shown)
        closed = [row.consent for row in shown.rows if row.opened is None and row.consent not in rows]
        chosen = [*rows, *secrets.SystemRandom().sample(closed, min(number, len(closed)))]
        for start in range(0, len(chosen), MAX_CHOSEN):
            data = self.fetch_listing(chosen[start : start + MAX_CHOSEN])
            verify_unchanged(shown, parse_listing(data))
        return data

    def _ask(self, what: str, sign: Callable[[SigningKey], Envelope]) -> bytes:
        if self._profile is None or self._api is None:
            raise ClientError("Only a registered auditor fetches bundles; run `twinvault auditor register` first.")
        key = SigningKey(self._profile.binary("key", SEED_BYTES))
        return self._api.request("POST", f"/v1/audit/{what}", content=sign(key).encoded).content

    def verify(self, path: Path, each: Each = map) -> Report:
        """Check everything that a bundle file shows; an answer's file and a month's are the same format.

        Args:
            path: The file.
            each: Runs the dear checks; `Processes` to run them beside each other.

        Raises:
            UnreadableFile: The file cannot be opened.
            MalformedProof: It is not a bundle.
            RolledBack: Its log contradicts one that this auditor has seen.
        """
        return self.verify_bytes(read_file(path), each=each)

    def verify_bytes(self, unverified_data: bytes, asked: range | None = None, each: Each = map) -> Report:
        """Check everything that a bundle shows.

        Args:
            unverified_data: The bundle.
            asked: The leaves that were asked for: the bundle must claim to be whole just there.
            each: As for `verify`.

        Raises:
            MalformedProof: It is not a bundle.
            RolledBack: Its log contradicts one that this auditor has seen.
        """
        bundle = parse_bundle(unverified_data)
        report = verify_bundle(bundle, self._trust, each=each, classifier=CLASSIFIER)
        if asked is not None and range(bundle.complete_from, bundle.complete_to) != asked:
            detail = (
                f"The leaves from {asked.start} until {asked.stop} were asked for; the bundle claims others as whole."
            )
            report = replace(report, failures=(*report.failures, Failure(Step.OPENINGS, None, detail)))
        if self._profile is not None and not report.failures:
            self._remember(self._profile, bundle.checkpoint)
        return report

    def _remember(self, profile: Profile, note: str) -> None:
        checkpoint = verify_checkpoint(note, self._trust.log, self._trust.origin)
        seen = Remembered(checkpoint.size, checkpoint.root)
        if self._api is not None:
            remember_checkpoint(self._api, profile, checkpoint)
            return
        last = profile.remembered("checkpoint")
        # Offline nothing shows that another size is of the same log: what was proven last stays the measure.
        if last is None or last.version == seen.version:
            profile.remember("checkpoint", seen)


def read_file(path: Path, what: str = "bundle") -> bytes:
    """Return the bytes of a bundle, or of what else the service sent.

    Raises:
        UnreadableFile: The file cannot be opened.
        MalformedProof: It is larger than any bundle, and is not read at all.
    """
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise MalformedProof(f"The {what} {path.name} is larger than {MAX_BUNDLE_BYTES} bytes; fetch it in parts.")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"The {what} {path} cannot be read: {error.strerror}.") from error
