"""An auditor registers, is admitted by the operator, fetches the log's evidence and verifies it offline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.client_kit import PURCHASE, Service
from tests.leaves import leaves
from tests.site_kit import operate
from tests.waiting import until
from twinvault import audits
from twinvault.api import Api, ApiError
from twinvault.auditor import Auditor
from twinvault.audits import _fetch_part, fetch_audit
from twinvault.cli import main
from twinvault.owner import Owner
from vault.clock import Clock
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.leaf import LeafKind
from vault.proof.listing import Listing, Opened, Row, listing_lines
from vault.proof.report import Step
from vault.tlog import log


def test_from_registration_to_a_verified_bundle(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api: Api
) -> None:
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))
    record, out, site = tmp_path / "record.json", tmp_path / "bundle", service.site.folder

    def auditor(*argv: object) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["auditor", *map(str, argv), "--json"])
        assert end.value.code in {None, 0}
        return json.loads(capsys.readouterr().out)

    def auditors(*argv: object) -> Any:
        said = operate(["auditors", *map(str, argv), "--site", str(site), "--json"])
        assert said.exit_code == 0, said.output
        return json.loads(said.output)

    auditor("register", "--trust", service.trust_file, "--name", "Auditors Inc", "--record", record)
    fetch = Auditor.load(tmp_path / "home" / "default", api).fetch
    with pytest.raises(ApiError) as refusal:
        fetch(0, 0)
    assert refusal.value.slug == "audit-refused"
    with pytest.raises(ApiError):
        fetch_audit(Auditor.load(tmp_path / "home" / "default", api), 0, 2**31, tmp_path / "month", lambda _: None)
    assert not (tmp_path / "month").exists()
    added = auditors("add", record, "--days", 1)
    assert auditors("list")["auditors"] == [added]
    report = auditor("bundle", "--first", 0, "--last", 2, "--out", out)
    assert (report["leaves"], report["failures"]) == (3, [])
    assert auditor("verify", out) == report
    alone, data = Auditor(service.trust), out.read_bytes()
    assert alone.verify_bytes(data, range(3)).failures == ()
    for asked in (range(4), range(1, 3), range(2)):
        assert [failure.step for failure in alone.verify_bytes(data, asked).failures] == [Step.OPENINGS]
    today, day = datetime.now(UTC), timedelta(days=1)  # midnight may pass meanwhile
    days = ["--since", f"{today - day:%Y-%m-%d}", "--until", f"{today + 2 * day:%Y-%m-%d}"]
    month = auditor("bundle", *days, "--out", tmp_path / "month")
    assert (month["leaves"] >= 8, month["failures"]) == (True, [])
    assert auditor("verify", tmp_path / "month") == month
    auditors("add", record, "--days", 0)
    with pytest.raises(ApiError):
        fetch(0, 0)


def _all_logged(service: Service) -> bool:
    with service.app.state.database.snapshot() as session:
        return log.head(session)[0] == len(leaves(session))


@pytest.fixture
def audit(own_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fetched audit in several parts, of a log that holds no other test's events: it is verified over and over."""
    service, api = own_service, Api(own_service.url)
    monkeypatch.setattr(audits, "PART_LEAVES", 3)
    made, _ = Owner.init(tmp_path / "vault", service.trust, passphrase=None, categories=[PURCHASE], api=api)
    made.device.close()
    auditor, registration = Auditor.register(tmp_path / "profile", service.trust, name="Auditors Inc")
    record = tmp_path / "record.json"
    record.write_bytes(registration)
    said = operate(["auditors", "add", str(record), "--site", str(service.site.folder)])
    assert said.exit_code == 0, said.output
    auditor = Auditor.load(tmp_path / "profile", api)
    until(lambda: _all_logged(service), "what was recorded is in the log")
    told: list[int] = []
    leaves = audits.fetch_audit(auditor, 0, 2**32, tmp_path / "audit", told.append)
    api.close()
    assert leaves == told[-1] > 6
    return tmp_path / "audit"


def test_an_audit_in_parts_holds_as_one_and_every_change_of_it_is_named(own_service: Service, audit: Path) -> None:
    service = own_service
    parts = sorted(audit.glob("part-*"))
    assert len(parts) > 2
    assert audits.verify_audit(audit, service.trust).failures == ()
    index = audit / "audit.json"
    honest = {path: path.read_bytes() for path in [*parts, index]}

    def failed() -> set[Step]:
        report = audits.verify_audit(audit, service.trust)
        for path, content in honest.items():
            path.write_bytes(content)
        return {failure.step for failure in report.failures}

    parts[1].write_bytes(honest[parts[1]][:-20])
    assert failed() == {Step.BUNDLE}
    parts[1].write_bytes(b"[" * 100_000 + b"\n")
    assert failed() == {Step.BUNDLE}
    parts[0].write_bytes(honest[parts[1]])
    parts[1].write_bytes(honest[parts[0]])
    assert Step.OPENINGS in failed()
    parts[1].write_bytes(honest[parts[0]])
    assert Step.OPENINGS in failed()
    record = json.loads(honest[index])
    for change in ({"end": record["end"] + 1}, {"first": 1}, {"growth": record["growth"][:-1]}):
        index.write_bytes(json.dumps(record | change).encode())
        assert failed() == {Step.OPENINGS}, change
    flipped = bytearray(honest[parts[2]])
    flipped[flipped.index(b'"entry":"') + 40] ^= 1
    parts[2].write_bytes(bytes(flipped))
    assert failed() & {Step.INCLUSION, Step.BUNDLE}
    assert failed() == set()
    for content in (b"", b"[]", b"{}", b"[" * 9999, honest[index].replace(b"/v1", b"/v2")):
        index.write_bytes(content)
        with pytest.raises(audits.UnreadableFile):
            audits.verify_audit(audit, service.trust)


def test_what_cannot_be_read_is_a_failure_of_step_0_and_exit_status_1(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (b"", b"{}", b"\xff\n", b'{"format":"twinvault-bundle/v1"}\n', b"[" * 9999 + b"\n"):
        (tmp_path / "bundle").write_bytes(content)
        with pytest.raises(SystemExit) as end:
            main(["auditor", "verify", str(tmp_path / "bundle"), "--trust", str(service.trust_file), "--json"])
        assert end.value.code == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["leaves"], report["checked"]) == (0, {})
        assert [(item["step"], item["name"]) for item in report["failures"]] == [(0, "bundle")]


def test_a_file_that_is_no_registration_is_refused(service: Service, tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"{}", b'{"format":"twinvault-auditor/v1"}', b"\xff", b"[" * 9999)):
        path = tmp_path / str(number)
        path.write_bytes(content)
        said = operate(["auditors", "add", str(path), "--site", str(service.site.folder)])
        assert said.exit_code == 1
        assert said.output.startswith("twinvault: ")


def test_a_file_larger_than_any_bundle_is_not_read(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").touch()
    with (tmp_path / "bundle").open("r+b") as file:
        file.truncate(10 * 2**30)  # ten gigabytes that take no room on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read into memory"))
    with pytest.raises(MalformedProof, match="larger than"):
        Auditor(service.trust).verify(tmp_path / "bundle")


def test_a_listing_that_changes_after_the_choice_is_refused(service: Service) -> None:
    row = Row(b"c" * 32, b"p" * 32, "owner", {LeafKind.CONSENT: 1})
    opened = Opened(b"c" * 16, b"s" * 32, b"p" * 16, b"t" * 32)

    def file(*rows: Row) -> bytes:
        return b"".join(listing_lines(Listing(0, 9, rows, 0, {})))

    listed, chosen = file(row), file(replace(row, opened=opened))
    mended = file(replace(row, opened=opened, counts={LeafKind.CONSENT: 2}))
    asked: list[tuple[bytes, ...]] = []

    class Answered(Auditor):
        answers: Iterator[bytes]

        def fetch_listing(self, chosen: Sequence[bytes] = (), clock: Clock | None = None) -> bytes:
            asked.append(tuple(chosen))
            return next(self.answers)

    def choose(*answers: bytes, number: int = 5, seen: bytes | None = None) -> bytes:
        auditor = Answered(service.trust)
        auditor.answers = iter(answers)
        return auditor.choose(number, seen=seen)

    assert choose(listed, chosen) == chosen
    assert asked == [(), (row.consent,)]
    assert choose(chosen, seen=listed) == chosen, "all are open already: nothing is chosen"
    for lie in ((listed, mended), (listed, file())):
        with pytest.raises(InvalidProof):
            choose(*lie)
    with pytest.raises(InvalidProof):
        choose(mended, number=0, seen=listed)


def test_a_part_to_which_too_much_belongs_is_halved_until_it_fits() -> None:
    asked: list[tuple[int, int]] = []

    class Full:
        def fetch(self, first: int, last: int) -> bytes:
            asked.append((first, last))
            if last - first >= 3:
                raise ApiError("audit-range-too-full", 422, "Too much.")
            return b"part"

    assert _fetch_part(cast("Auditor", Full()), 10, 20) == (b"part", 12)
    assert asked == [(10, 19), (10, 14), (10, 11)]

    class Closed:
        def fetch(self, *_: int) -> bytes:
            raise ApiError("audit-refused", 403, "No.")

    with pytest.raises(ApiError, match="No"):
        _fetch_part(cast("Auditor", Closed()), 10, 20)
