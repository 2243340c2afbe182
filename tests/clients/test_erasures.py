"""An owner erases traces, months or everything, and believes only a certificate that holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client_kit import PURCHASE, Service, Tamper, json_answer, purchases
from twinvault.api import Api, ApiError
from twinvault.cli import common, main
from twinvault.device import Device
from twinvault.erasures import ForgedCertificate, NothingThere
from twinvault.owner import Owner
from twinvault.profile import RolledBack
from twinvault.receipts import NoReceipt
from vault.consent import versions
from vault.consent.events import Place
from vault.encoding import b64u, parse_b64u, parse_json
from vault.erasure import routes
from vault.errors import VaultError
from vault.proof.errors import InvalidProof
from vault.schema.consent import dump_consent, parse_consent
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.derive import subject_of
from vault.seal.dsse import PayloadType, parse_envelope, sign_record, unverified_record
from vault.seal.erasure import Counted
from vault.seal.ids import SubjectId
from vault.seal.signing import SigningKey, new_seed
from vault.seal.subject_erasure import sign_subject_erasure
from vault.seal.version import Remembered

JANUARY, FEBRUARY = Period("2026-01"), Period("2026-02")
Begin = Callable[..., tuple[Owner, Any]]


@pytest.fixture
def full(new_owner: Begin, work: Callable[[], None]) -> Owner:
    """An owner with two months of traces and a twin."""
    owner, _ = new_owner()
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    for month in (1, 2):
        owner.import_traces(purchases(5, month=month))
    owner.refresh()
    work()
    return owner


def months(owner: Owner) -> dict[Period, int]:
    return {period: len(owner.erasures.traces.month(PURCHASE, period)) for period in (JANUARY, FEBRUARY)}


def test_an_owner_reads_the_own_traces_back(full: Owner) -> None:
    assert months(full) == {JANUARY: 5, FEBRUARY: 5}
    assert {trace.id for trace in full.erasures.traces.month(PURCHASE, JANUARY)} == {t.id for t in purchases(5)}


def test_a_month_is_erased_and_may_be_imported_again_at_no_new_budget(full: Owner, work: Callable[[], None]) -> None:
    spent = full.budget()
    found = full.erasures.compartments(PURCHASE, JANUARY, JANUARY)
    preview = full.erasures.preview(found)
    assert preview["destroys"] == {"compartments": 1, "batches": 1, "rows": 2, "consents": 1, "answers": 0}
    assert months(full) == {JANUARY: 5, FEBRUARY: 5}, "a preview changes nothing"
    done = full.erasures.erase(found, "never mind")
    assert done.certificate.destroyed == {Counted(name): count for name, count in preview["destroys"].items()}
    assert len(done.renewed) == 1
    assert months(full) == {JANUARY: 0, FEBRUARY: 5}
    assert "2026-01" not in [row["period"] for row in full.twin()["releases"]]
    assert full.budget() == spent
    full.refresh()
    work()
    assert full.import_traces(purchases(5, month=1)).sent == 5
    full.refresh()
    work()
    assert months(full) == {JANUARY: 5, FEBRUARY: 5}
    after = next(month for month in full.budget()["months"] if month["period"] == JANUARY)
    assert after == next(month for month in spent["months"] if month["period"] == JANUARY)
    with pytest.raises(NothingThere):
        full.erasures.erase({})


def test_one_trace_is_erased_by_sealing_the_rest_anew(full: Owner) -> None:
    first = purchases(1)[0]
    done, gone = full.erasures.erase_traces(PURCHASE, JANUARY, lambda trace: trace.id == first.id)
    assert gone == 1
    assert done.certificate.destroyed[Counted.COMPARTMENTS] == 1
    assert months(full) == {JANUARY: 4, FEBRUARY: 5}
    assert first.id not in {trace.id for trace in full.erasures.traces.month(PURCHASE, JANUARY)}
    with pytest.raises(NothingThere):
        full.erasures.erase_traces(PURCHASE, JANUARY, lambda trace: trace.id == first.id)
    assert len(full.erasures.compartments(PURCHASE, JANUARY, JANUARY)) == 1


def test_what_another_device_is_acknowledged_for_meanwhile_outlives_the_erasure_of_a_trace(
    full: Owner, new_device: Callable[[Owner], Device], tamper: Tamper
) -> None:
    """Read before the month's old keys are closed, an upload in between would be acknowledged and then destroyed."""
    phone, first, late = new_device(full), purchases(1)[0], purchases(6)[5:]

    def meanwhile(response: httpx.Response) -> httpx.Response:
        if not response.json()["batches"] and phone.add(late):  # the month was read to its end
            assert phone.flush().sent == 1
        return response

    tamper.on("GET", "/batches", meanwhile)
    _, gone = full.erasures.erase_traces(PURCHASE, JANUARY, lambda trace: trace.id == first.id)
    left = {trace.id for trace in full.erasures.traces.month(PURCHASE, JANUARY)}
    assert (gone, phone.waiting) == (1, 0)
    assert left == {trace.id for trace in purchases(6)} - {first.id}


def test_a_device_can_go_on_in_a_month_that_was_erased(full: Owner) -> None:
    full.erasures.erase(full.erasures.compartments(PURCHASE))
    assert full.import_traces(purchases(2, month=11)).waiting == 0


def test_everything_goes_and_the_certificate_can_still_be_fetched(full: Owner, service: Service) -> None:
    done = full.erasures.erase_everything()
    with pytest.raises(ApiError):
        full.twin()
    answer = httpx.get(f"{service.url}/v1/erasures/{b64u(done.certificate.erasure_id)}")
    assert answer.status_code == 200
    assert parse_b64u(answer.json()["certificate"]) == done.encoded
    assert httpx.get(f"{service.url}/v1/erasures/{b64u(bytes(16))}").status_code == 404


@pytest.mark.parametrize("lie", ["signer", "order", "scope", "proof", "missing"])
def test_a_certificate_that_does_not_hold_is_refused(full: Owner, tamper: Tamper, lie: str) -> None:
    kept: dict[str, Any] = {}

    def change(response: httpx.Response) -> httpx.Response:
        document = response.json()
        signed = parse_envelope(parse_b64u(document["certificate"]))
        if lie == "signer":
            forged = sign_record(PayloadType.ERASED, parse_json(signed.payload), SigningKey(new_seed()))
            document["certificate"] = b64u(forged.encoded)
        elif lie in {"order", "scope"}:
            if kept:
                return json_answer(kept, 201)
            kept.update(document)
        elif lie == "proof":
            document["proof"] = document["proof"].replace("test.example/log", "evil.example/log")
        else:
            del document["certificate"]
        return json_answer(document, 201)

    tamper.on("POST", "/erasures", change)
    if lie in {"order", "scope"}:
        full.erasures.erase(full.erasures.compartments(PURCHASE, JANUARY, JANUARY))
    with pytest.raises((ForgedCertificate, InvalidProof, ApiError)):
        full.erasures.erase(full.erasures.compartments(PURCHASE, FEBRUARY, FEBRUARY))


@pytest.mark.parametrize(
    ("changed", "slug"),
    [
        (lambda _owner, _day: [], "subjects-missing"),
        (lambda owner, day: _as_subject(owner, owner.profile.trust.origin, day - 1), "stale-order"),
        (lambda owner, day: _as_subject(owner, "another.example/log", day), "bad-seal"),
    ],
    ids=["missing", "of the day before", "of another log"],
)
def test_everything_is_erased_on_the_word_of_every_pairwise_key_only(
    full: Owner, monkeypatch: pytest.MonkeyPatch, changed: Callable[[Owner, int], list[str]], slug: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(full.erasures, "_as_each_subject", lambda day: changed(full, day))
        with pytest.raises(ApiError) as refused:
            full.erasures.erase_everything()
    assert refused.value.slug == slug
    assert months(full) == {JANUARY: 5, FEBRUARY: 5}, "nothing was erased"
    assert full.erasures.erase_everything().certificate.destroyed[Counted.CONSENTS] == 1


def test_nobody_waits_to_write_while_somebodys_word_is_verified(
    full: Owner, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands, by keys that anybody made up."""
    real, written = routes.verify_subject_erasure, []

    def meanwhile(*said: Any) -> Any:
        with monkeypatch.context() as impatient:
            impatient.setattr("vault.db._BUSY_TIMEOUT_S", 5)
            with service.app.state.database.transaction() as session:  # refused where this very request is writing
                written.append(session)
        return real(*said)

    monkeypatch.setattr(routes, "verify_subject_erasure", meanwhile)
    full.erasures.erase_everything()
    assert len(written) == 1


def test_who_will_not_believe_the_services_consents_any_more_can_still_have_everything_erased(full: Owner) -> None:
    """A backup that was put back shows an older version than this machine has seen: all the more reason to leave."""
    (consent,) = full.consents()
    full.profile.remember(f"consent/{b64u(consent.id)}", Remembered(9, bytes(32)))
    with pytest.raises(RolledBack):
        full.consents()
    assert full.erasures.erase_everything().certificate.destroyed[Counted.CONSENTS] == 1


def test_nobodys_order_is_signed_as_a_subject_that_the_service_makes_up(full: Owner, tamper: Tamper) -> None:
    """To whom else this owner could have consented, and as whom, the service does not learn by naming a company."""
    (mine,) = full._api.get(f"/v1/vaults/{b64u(full.vault)}/consents", auth=full._auth)["consents"]
    version = parse_consent(unverified_record(parse_envelope(parse_b64u(mine["versions"][0]["envelope"]))))
    terms = replace(version.terms, grantee="B" * 22, kind=ConsentKind.COMPANY)
    elsewhere = replace(version, terms=terms, request_sha256=bytes(range(32)))
    forged = sign_record(PayloadType.CONSENT, dump_consent(elsewhere), SigningKey(new_seed()))
    made_up = {**mine, "versions": [{**mine["versions"][0], "envelope": b64u(forged.encoded)}]}
    tamper.on("GET", "/consents", lambda _: json_answer({"consents": [mine, made_up]}))
    assert full.erasures._as_each_subject(1) == _as_subject(full, full.profile.trust.origin, 1)


def test_a_withdrawal_that_is_logged_as_another_subjects_is_noticed(
    own_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else that subject's key, and so the service, could have it erased before an auditor sees it."""
    with closing(Api(own_service.url)) as api:  # a log of its own, for the forged leaf stays in it
        owner, _ = Owner.init(tmp_path / "vault", own_service.trust, passphrase=None, categories=[PURCHASE], api=api)
        owner.device.close()
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
        _log_another_subject(monkeypatch)
        (consent,) = owner.consents()
        with pytest.raises(NoReceipt, match="not about the version that was signed"):
            owner.withdraw(consent.id)


def _log_another_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    real = versions.log_event

    def as_anothers(session: Any, place: Place, *said: Any) -> Any:
        return real(session, replace(place, subject=SubjectId(bytes(16))), *said)

    monkeypatch.setattr(versions, "log_event", as_anothers)


def test_an_erasure_is_acknowledged_once_the_journal_forgot_it(
    full: Owner, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = service.app.state
    monkeypatch.setattr(state.sequencer, "_forget_beside", lambda: None)
    (consent,) = full.consents()
    subject = b64u(subject_of(full._keys.towards("owner").public_key)).encode()
    assert consent.live
    assert subject in state.journal._path.read_bytes()
    full.erasures.erase_everything()
    assert subject not in state.journal._path.read_bytes()


def _as_subject(owner: Owner, log: str, day: int) -> list[str]:
    return [b64u(sign_subject_erasure(log, day, owner._keys.towards("owner")).encoded)]


def test_a_batch_that_the_service_hides_or_invents_shows(full: Owner, new_owner: Begin, tamper: Tamper) -> None:
    full.import_traces(purchases(7, month=1)[5:])
    path = f"/v1/vaults/{b64u(full.vault)}/batches"
    (compartment,) = full.erasures.compartments(PURCHASE, JANUARY, JANUARY)
    shown = full._api.get(path, auth=full._auth, params={"compartment": b64u(compartment), "after": 0})
    assert len(shown["batches"]) == 2
    for lie in ([shown["batches"][1]], shown["batches"][::-1], [shown["batches"][0]] * 2):
        tamper.rules.clear()
        tamper.on("GET", "/batches", lambda _, lie=lie: json_answer({"batches": lie, "next": shown["next"]}))
        with pytest.raises(VaultError):
            full.erasures.traces.month(PURCHASE, JANUARY)


def test_the_command_shows_asks_and_erases(
    full: Owner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(common, "unlock_owner", lambda *_: full)

    def run(*argv: object, expect: int = 0) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["owner", "erase", *map(str, argv), "--json"])
        said = capsys.readouterr()
        assert (end.value.code or 0) == expect, said.err
        return json.loads(said.out) if said.out else said.err

    january = ("--category", PURCHASE, "--from", "2026-01", "--to", "2026-01")
    assert run(*january, "--dry-run")["destroys"]["batches"] == 1
    assert "--confirm erase" in run(*january, expect=1)
    assert "Nothing was erased" in run(*january, "--confirm", "yes", expect=1)
    for wrong in ((), ("--everything", "--category", PURCHASE), ("--category", PURCHASE, "--trace", "till/x")):
        run(*wrong, "--confirm", "erase", expect=2)
    assert months(full) == {JANUARY: 5, FEBRUARY: 5}
    one = purchases(1)[0]
    erased = run(*january, "--trace", f"{one.source}/{one.id}", "--confirm", "erase")
    assert (erased["traces"], erased["verified"]) == (1, True)
    kept = tmp_path / "certificate.json"
    for unwritable in (tmp_path, tmp_path / "none" / "c"):
        assert "cannot be written" in run(*january, "--confirm", "erase", "--certificate", unwritable, expect=1)
    assert run(*january, "--confirm", "erase", "--certificate", kept)["destroyed"]["batches"] == 1
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "Nothing was erased" in run("--everything", "--confirm", "erase", expect=1)
    assert run("--everything", "--confirm", b64u(full.vault))["destroyed"]["consents"] == 1
