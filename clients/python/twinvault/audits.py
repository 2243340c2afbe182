"""An audit: a stretch of the log of any length, fetched and verified part by part in bounded memory.

A folder holds the parts in the order of the log, each a bundle of its own, and in `audit.json` how each
part's log grew out of the one before. What one part establishes the next continues: chains of consents,
quotas and times run across the cuts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

from twinvault.api import ApiError, field
from twinvault.auditor import Auditor, UnreadableFile, read_file
from twinvault.profile import write_private
from twinvault.receipts import CLASSIFIER
from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.bundle import Bundle, parse_bundle
from vault.proof.checkpoint import Checkpoint, parse_checkpoint
from vault.proof.deferred import Each
from vault.proof.errors import InvalidProof
from vault.proof.established import Carried
from vault.proof.listing import Listing
from vault.proof.merkle import verify_consistency
from vault.proof.note import parse_b64, parse_note
from vault.proof.report import Failure, Report, Step
from vault.proof.sampled import Tally, verify_listing
from vault.proof.trust import TrustedRoot
from vault.proof.verify import verify_bundle

PART_LEAVES: Final = 5_000

_INDEX: Final = "audit.json"
_FORMAT: Final = "twinvault-audit/v1"
_TOO_FULL: Final = "audit-range-too-full"
_MAX_PARTS: Final = 100_000


def fetch_audit(auditor: Auditor, since_s: int, until_s: int, folder: Path, done: Callable[[int], None]) -> int:
    """Fetch everything recorded between two times into a folder; the service logs each part as an access.

    Args:
        auditor: Registered, with a connection.
        since_s: Unix seconds.
        until_s: Unix seconds.
        folder: Made if missing, once the service sent something.
        done: Told after each part up to which leaf the audit has come.

    Returns:
        How many leaves were fetched.

    Raises:
        ClientError: Nothing was recorded then, or the auditor cannot fetch.
        ApiError: The service refuses.
        MalformedProof: A part is no bundle.
    """
    api = auditor.connection
    found = api.get("/v1/log/range", params={"since": since_s, "until": until_s})
    first: int = field(found, "first", int)
    end: int = field(found, "end", int)
    growth: list[JsonValue] = []
    seen: Checkpoint | None = None
    start = first
    while start < end:
        data, after = _fetch_part(auditor, start, min(start + PART_LEAVES, end))
        folder.mkdir(parents=True, exist_ok=True)  # not before: what is refused leaves nothing behind
        write_private(folder / _name(len(growth)), data)
        checkpoint = _unverified_checkpoint(parse_bundle(data))
        proof: list[JsonValue] = []
        if seen is not None and seen.size < checkpoint.size:
            answer = api.get("/v1/log/proof/consistency", params={"from": seen.size, "to": checkpoint.size})
            proof = [b64u(parse_b64(str(item), size=32)) for item in field(answer, "proof", list)]
        growth.append(proof)
        seen, start = checkpoint, after
        done(start)
    folder.mkdir(parents=True, exist_ok=True)
    index: JsonObject = {"format": _FORMAT, "first": first, "end": end, "growth": growth}
    write_private(folder / _INDEX, dump_json(index) + b"\n")
    return end - first


def _fetch_part(auditor: Auditor, start: int, end: int) -> tuple[bytes, int]:
    """Return a bundle that begins at a leaf, and where it ends: earlier, if more belongs to it than fits into one."""
    while True:
        try:
            return auditor.fetch(start, end - 1), end
        except ApiError as refusal:
            if refusal.slug != _TOO_FULL or end == start + 1:
                raise
        end = start + (end - start) // 2


def verify_audit(folder: Path, trust: TrustedRoot, listing: Listing | None = None, each: Each = map) -> Report:
    """Verify the parts of an audit one after the other, as one.

    Args:
        folder: What `fetch_audit` wrote.
        trust: The caller's pinned keys.
        listing: What the auditor chose consents from, where the audit opens those only.
        each: Runs the dear checks; `Processes` to run them beside each other.

    Returns:
        What was checked in all parts together. A part that cannot be read, or does not hold, ends it:
        what comes after would rest on nothing.

    Raises:
        UnreadableFile: The folder holds no audit.
        ProcessDied: One of several processes ended before its time.
    """
    first, end, growth = _read_index(folder)
    tally = None if listing is None else Tally(listing)
    carried, reports = Carried(tally=tally), [Report(0, {}, {}, ())]
    for number, proof in enumerate(growth):
        try:
            bundle = parse_bundle(read_file(folder / _name(number)))
        except InvalidProof as error:
            return _sum([*reports, unreadable(error)])
        before = carried.checkpoint
        report = verify_bundle(bundle, trust, carried, each, classifier=CLASSIFIER)
        reports.append(report)
        if not report.failures and before is not None:
            reports.append(_grown(before, carried.checkpoint, proof))
        if reports[-1].failures:
            return _sum(reports)
    if growth and (carried.complete_from, carried.complete_to) != (first, end):
        detail = f"The audit claims the leaves from {first} to {end}, but its parts end at {carried.complete_to}."
        reports.append(Report(0, {Step.OPENINGS: 1}, {}, (Failure(Step.OPENINGS, None, detail),)))
    if tally is not None:
        reports.append(verify_listing(tally, (carried.complete_from, carried.complete_to)))
    return _sum(reports)


def unreadable(error: InvalidProof) -> Report:
    """Return the report of a file that is not what it should be: it counts nothing as checked."""
    return Report(0, {}, {}, (Failure(Step.BUNDLE, None, error.detail),))


def _grown(before: Checkpoint, after: Checkpoint | None, proof: list[bytes]) -> Report:
    failures: tuple[Failure, ...] = ()
    try:
        assert after is not None
        verify_consistency(before.size, after.size, proof, before.root, after.root)
    except InvalidProof as error:
        failures = (Failure(Step.CHECKPOINT, None, error.detail),)
    return Report(0, {Step.CHECKPOINT: 1}, {}, failures)


def _sum(reports: list[Report]) -> Report:
    checked: Counter[Step] = Counter()
    withheld: Counter[Step] = Counter()
    erased: Counter[str] = Counter()
    for report in reports:
        checked.update(report.checked)
        withheld.update(report.withheld)
        erased.update(report.erased)
    failures = tuple(failure for report in reports for failure in report.failures)
    leaves = sum(report.leaves for report in reports)
    return Report(leaves, dict(checked), dict(withheld), failures, dict(erased))


def _read_index(folder: Path) -> tuple[int, int, list[list[bytes]]]:
    try:
        record = parse_json((folder / _INDEX).read_bytes().strip())
        first, end, growth = (record.get(name) for name in ("first", "end", "growth"))
        shaped = isinstance(first, int) and isinstance(end, int) and isinstance(growth, list)
        if record.get("format") != _FORMAT or not shaped or len(cast("list[JsonValue]", growth)) > _MAX_PARTS:
            raise UnreadableFile(f"The folder {folder} holds no audit of the format {_FORMAT}.")
        return cast("int", first), cast("int", end), [[*_hashes(proof)] for proof in cast("list[JsonValue]", growth)]
    except OSError as error:
        raise UnreadableFile(f"The folder {folder} holds no audit: {_INDEX} cannot be read.") from error
    except MalformedInput as error:
        raise UnreadableFile(f"The folder {folder} holds no audit: {error.detail}") from error


def _hashes(proof: JsonValue) -> Iterator[bytes]:
    if not isinstance(proof, list):
        raise MalformedInput("A proof is a list of hashes.")
    return (parse_b64u(item, size=32) for item in proof)


def _unverified_checkpoint(bundle: Bundle) -> Checkpoint:
    return parse_checkpoint(parse_note(bundle.checkpoint).unverified_text)


def _name(number: int) -> str:
    return f"part-{number:06d}.bundle"
