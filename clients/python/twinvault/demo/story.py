"""The story, step by step: each does something real over HTTP or the command line and says what it proves."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import zstandard

from twinvault.api import Api, ApiError
from twinvault.company import Company
from twinvault.demo.cohort import Clients, Joined
from twinvault.demo.evidence import flip_bit, read_shown
from twinvault.demo.histories import (
    COHORT_MONTHS,
    MONTHS,
    PURCHASE,
    TIME_ZONE,
    Histories,
    in_words,
    next_shops,
    read_traces,
)
from twinvault.demo.scan import find_in_files, size_bytes
from twinvault.demo.service import DemoFailed, Service, twinvault_command
from twinvault.demo.teller import Teller
from twinvault.owner import Owner
from twinvault.profile import write_private
from twinvault.receipts import VerifiedAnswer
from vault.clock import DAY_S, SystemClock, unix_s
from vault.encoding import b64u
from vault.proof.certificate import CertificateInvalid
from vault.proof.checkpoint import verify_checkpoint
from vault.schema.category import Purpose
from vault.schema.question import NextChoice, QuestionKind
from vault.schema.terms import ConsentKind, Handling, Terms
from vault.seal.ids import ConsentId

TOP_N: Final = 5
PURPOSE: Final = Purpose("dpv:ServicePersonalisation")
NOT_GRANTED: Final = Purpose("dpv:Advertising")
_FORBIDDEN: Final = 403
_REFRESH_S: Final = 120.0
_LOGGED_S: Final = 30.0


@dataclass
class Figures:
    """What `--json` prints; the keys are stable.

    Args:
        seconds: How long the story took.
        households: Vaults with keys of their own.
        stored_plaintext_hits: Files of the service in which the canary can be read.
        canary_found_when_planted: Whether the same scan finds a canary that was planted on purpose.
        leaves: Size of the log at the end.
        epsilon_owner_day: What the followed owner's imprint cost any one day.
        epsilon_person: What the backbone cost each contributor.
        answer: What the twin predicted, what was bought next, what popularity guessed.
        receipt_verified: Whether the auditor's command accepts the answer's bundle.
        tamper_detected: Whether a copy with one bit flipped fails.
        refused_after_withdrawal: Whether the next question was refused.
        auditor_failures: Failures that the auditor's command found in the true bundle.
    """

    seconds: float = 0.0
    households: int = 0
    stored_plaintext_hits: int = 0
    canary_found_when_planted: bool = False
    leaves: int = 0
    epsilon_owner_day: float = 0.0
    epsilon_person: float = 0.0
    answer: dict[str, Any] | None = None
    receipt_verified: bool = False
    tamper_detected: bool = False
    refused_after_withdrawal: bool = False
    auditor_failures: int = 0


class Story:
    """Plays the story against one running service.

    Args:
        service: The service.
        histories: Who takes part.
        folder: For profiles and files.
        teller: Prints.
    """

    def __init__(self, service: Service, histories: Histories, folder: Path, teller: Teller) -> None:
        self.figures = Figures(households=1 + len(histories.cohort))
        self.homes = folder / "homes"
        self.bundle_file = folder / "answer.bundle"
        self.passphrase_file = self.homes / "passphrase.txt"
        self.owner_name = f"household-{histories.followed}"
        self._service = service
        self._histories = histories
        self._tell = teller
        self._canary = f"canary {secrets.token_hex(12)}"
        self._everyone: list[Joined] = []
        self.homes.mkdir(mode=0o700)

    def play(self) -> None:
        """Play all steps.

        Raises:
            VaultError: A step did not do what it must.
        """
        with Clients(self.homes, self._service.trust_file) as clients:
            owner = self._begin_vault()
            self._fill_cohort(clients)
        with ThreadPoolExecutor(1) as background:
            training = background.submit(self._service.operator, "train", "--wait", allowed=(0, 1))
            self._scan()
            companies = [self._admit(name) for name in ("Green Grocer", "Corner Bakery")]
            consents = [self._consent(owner, company) for company in companies]
            self._wait_for_model(training)
        answered = self._ask(owner, companies[0], consents[0])
        self._deny(owner, companies[0], consents[0])
        self._audit(answered)
        self._withdraw(owner, companies[0], consents[0])
        self._left = companies[1], consents[1]
        self._count_leaves()

    def _begin_vault(self) -> Owner:
        self._tell.step(f"A household begins a vault: number {self._histories.followed}, as published by 84.51 degrees")
        self._tell.say(f"It is the one with the most shop days of 2017: {self._histories.shop_days}.")
        passphrase = secrets.token_urlsafe(12)
        write_private(self.passphrase_file, passphrase.encode())
        owner, _ = Owner.init(
            self.homes / self.owner_name, self._service.trust(), passphrase=passphrase, categories=[PURCHASE],
            time_zone=TIME_ZONE,
        )  # fmt: skip
        first, *rest = read_traces(self._histories.followed_file, MONTHS)
        sent = owner.import_traces([replace(first, text=self._canary), *rest]).sent
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
        owner.refresh()
        self._tell.say(f"{sent} purchases from {MONTHS[0]} to {MONTHS[-1]} are sealed under its own keys and stored.")
        self._tell.say("Its self consent lets the worker make a noisy row of every day; it joins no training.")
        return owner

    def _fill_cohort(self, clients: Clients) -> None:
        cohort = self._histories.cohort
        self._tell.step(f"{len(cohort)} more households, each with keys of its own, join through the same public API")
        with self._tell.progress("vaults", len(cohort)) as advance:

            def joined(one: Joined) -> None:
                self._everyone.append(one)
                advance()

            clients.join(cohort, joined)
        traces = sum(one.traces for one in self._everyone)
        self._tell.say(
            f"{traces} purchases from {COHORT_MONTHS[0]} to {COHORT_MONTHS[-1]} sealed; each gave self and cohort consent."
        )

    def _scan(self) -> None:
        self._tell.step("What can be read where it is stored? A scan of databases, write-ahead logs, keyrings and logs")
        stored = [self._service.site, self._service.logs]
        planted = self._service.logs / "planted.zst"
        planted.write_bytes(zstandard.compress(f"before {self._canary} after".encode()))
        found = find_in_files([planted], self._canary)
        planted.unlink()
        self.figures.canary_found_when_planted = planted in found
        hits = find_in_files(stored, self._canary)
        self.figures.stored_plaintext_hits = len(hits)
        self._tell.say("Planted on purpose and compressed, the canary text is found: the scanner works.")
        self._tell.say(
            f"Of {size_bytes(stored):,} stored bytes, {len(hits)} files show the same text, which is in a sealed purchase."
        )
        if hits or planted not in found:
            raise DemoFailed("The scan found a readable trace, or does not work.")

    def _admit(self, name: str) -> Company:
        folder = self.homes / name.lower().replace(" ", "-")
        company, record = Company.register(
            folder, self._service.trust(), name=name, contact=f"privacy@{folder.name}.example"
        )
        file = folder / "record.jws"
        write_private(file, record.encode())
        self._service.operator("companies", "add", str(file))
        return company

    def _consent(self, owner: Owner, company: Company) -> ConsentId:
        asked = owner.read_request(company.sign_request(_terms(company)))
        notice = owner.notice(asked.request.terms, asked.company)
        changed = owner.give_company(asked)
        self._tell.step(f"{asked.company} asks for consent; the household's own client shows what it means")
        for line in notice.splitlines():
            self._tell.say(f"| {line}")
        self._tell.say("Given, signed with a key that only this company sees, logged; the receipt was verified.")
        return ConsentId(changed.version.consent_id)

    def _wait_for_model(self, training: Future[Any]) -> None:
        self._tell.step("The worker trains one backbone on the cohort, audits it and signs its certificate")
        outcome = training.result().get("outcome")
        if outcome == CertificateInvalid.slug:
            raise DemoFailed(
                "The backbone was refused and thrown away: what was measured of it, under noise, does not show that it "
                "meets production's thresholds. Of few households that happens now and then by the noise alone, and "
                "the year's budget pays for one training: play again, or with more --households."
            )
        if outcome != "released":
            raise DemoFailed(f"The backbone was not released: {outcome}.")
        self._tell.say("Released: its certificate meets the same thresholds as in production.")

    def _ask(self, owner: Owner, company: Company, consent: ConsentId) -> VerifiedAnswer:
        self._tell.step("Green Grocer asks: what will this household choose next?")
        self._wait_for_rows(owner)
        answered = company.ask(consent, NextChoice(PURCHASE, PURPOSE, TOP_N))
        write_private(self.bundle_file, answered.bundle)
        shown = read_shown(answered.bundle)
        self._show_prediction([item.code for item in answered.answer.predictions], str(answered.answer.confidence))
        for sentence in shown.sentences:
            self._tell.say(f"Decision: allowed, because: {sentence}")
        spending = owner.twin()["spending"]
        self.figures.epsilon_owner_day = max(month["day"] for month in spending)
        self.figures.epsilon_person = shown.manifest.epsilon_ppm / 1e6
        self._tell.say(
            f"Privacy charged: epsilon {self.figures.epsilon_owner_day:.2f} to each of the household's days, once; "
            f"epsilon {self.figures.epsilon_person:.2f} to each contributor of the backbone. The answer itself: quota."
        )
        return answered

    def _wait_for_rows(self, owner: Owner) -> None:
        deadline = time.monotonic() + _REFRESH_S
        while (job := owner.twin()["job"]) is None or job["state"] != "done":
            if time.monotonic() > deadline or (job and job["state"] == "failed"):
                raise DemoFailed("The worker did not make the household's summaries.")
            time.sleep(0.2)

    def _show_prediction(self, predicted: list[str], confidence: str) -> None:
        shops = next_shops(self._histories.followed_file)
        day, bought = next(iter(shops.items()))
        total: Counter[str] = Counter()
        for one in self._everyone:
            total.update(one.share)
        popular = [code for code, _ in total.most_common(TOP_N)]
        ours, guess = (_mean_hits(codes, shops.values()) for codes in (predicted, popular))
        self._tell.say(f"The twin says:          {_words(predicted)} (confidence {confidence})")
        self._tell.say(f"Popularity would guess: {_words(popular)} (counted by this demo from the cohort's own files)")
        self._tell.say(f"Bought on {day}:   {_words(bought)} (held out: no vault holds December)")
        self._tell.say(
            f"Of each five, bought again on a shop day of December, on average over {len(shops)} days: "
            f"twin {ours:.1f}, popularity {guess:.1f}."
        )
        self.figures.answer = {
            "predicted": predicted, "confidence": confidence, "popular": popular, "bought_next": bought,
            "hits_a_shop_day": round(ours, 2), "popular_hits_a_shop_day": round(guess, 2), "shop_days": len(shops),
        }  # fmt: skip

    def _deny(self, owner: Owner, company: Company, consent: ConsentId) -> None:
        self._tell.step("The same company asks for advertising, which was not granted")
        refusal = _refused(company, consent, NOT_GRANTED)
        if refusal is None:
            raise DemoFailed("A question for a purpose that was not granted was answered.")
        denial = _denial(owner)
        self._tell.say(f"The company is told: {refusal.detail}")
        self._tell.say(f"The household reads in its history: {' '.join(rule['sentence'] for rule in denial['rules'])}")

    def _audit(self, answered: VerifiedAnswer) -> None:
        self._tell.step("An auditor verifies the answer offline, with keys it pinned itself")
        copy = self.bundle_file.with_suffix(".flipped")
        write_private(copy, flip_bit(answered.bundle))
        with ThreadPoolExecutor(2) as pool:
            report, of_copy = pool.map(self._verify, (self.bundle_file, copy))
        copy.unlink()
        self.figures.auditor_failures = len(report["failures"])
        self.figures.receipt_verified = not report["failures"]
        self._tell.say(f"{report['leaves']} leaves, {sum(report['checked'].values())} checks, no failure.")
        if report["failures"]:
            raise DemoFailed(f"The answer does not verify: {report['failures'][0]['detail']}")
        failures = of_copy["failures"]
        self.figures.tamper_detected = bool(failures)
        if not failures:
            raise DemoFailed("A bundle with one flipped bit verified.")
        first = failures[0]
        self._tell.say(
            f"A copy with one flipped bit fails at step {first['step']} ({first['name']}): {first['detail']}"
        )

    def _verify(self, bundle: Path) -> Any:
        trust = str(self._service.trust_file)
        return self._service.command("auditor", "verify", str(bundle), "--trust", trust, allowed=(0, 1))

    def _withdraw(self, owner: Owner, company: Company, consent: ConsentId) -> None:
        self._tell.step("The household withdraws, and Green Grocer asks again")
        owner.withdraw(consent)
        refusal = _refused(company, consent, PURPOSE)
        self.figures.refused_after_withdrawal = refusal is not None
        if refusal is None:
            raise DemoFailed("A question was answered after the consent was withdrawn.")
        self._tell.say(f"Refused: {refusal.detail} The keys that were handed over are deleted.")

    def _count_leaves(self) -> None:
        trust = self._service.trust()
        api = Api(trust.issuer)
        note = api.request("GET", "/v1/log/checkpoint").text
        api.close()
        self.figures.leaves = verify_checkpoint(note, trust.log, trust.origin).size

    def farewell(self) -> str:
        """Return the running service's address and what owner, company and auditor can do next, to copy."""
        company, consent = self._left
        folder, home = company.profile.folder, f"TWINVAULT_HOME={shlex.quote(str(self.homes))}"
        secret, bundle, trust = (
            str(file) for file in (self.passphrase_file, self.bundle_file, self._service.trust_file)
        )
        owner = _line("owner", "history", "--profile", self.owner_name, "--passphrase-file", secret)
        asked = _line(
            "company", "ask", b64u(consent), "--profile", folder.name, "--purpose", PURPOSE, "--top-n", str(TOP_N)
        )
        return f"""
The service runs at {self._service.url}; one consent, for Corner Bakery, is live. To paste into another terminal:

# the owner reads who asked what
{home} {owner}
# the company asks, on the command line
{home} {asked}
# an auditor verifies the first answer, offline
{_line("auditor", "verify", bundle, "--trust", trust)}

# the company asks, in five lines of Python, for {shlex.quote(sys.executable)}
from pathlib import Path
from twinvault import Company, NextChoice, parse_id
company = Company.load(Path({str(folder)!r}))
answered = company.ask(parse_id("{b64u(consent)}"), NextChoice("{PURCHASE}", "{PURPOSE}", top_n={TOP_N}))
print(answered.answer.predictions)
"""


def _line(*arguments: str) -> str:
    """Return a `twinvault` command to paste into any terminal, whatever its PATH and folder."""
    return shlex.join([*twinvault_command(), *arguments])


def _terms(company: Company) -> Terms:
    now_s = unix_s(SystemClock().now())
    name = company.profile.text("name")
    return Terms(
        kind=ConsentKind.COMPANY,
        grantee=company.company_id,
        purposes=frozenset({PURPOSE}),
        questions=frozenset({QuestionKind.NEXT_CHOICE}),
        necessary=frozenset({PURCHASE}),
        optional=frozenset(),
        data_from=MONTHS[0],
        data_to=MONTHS[-1],
        not_before=now_s,
        not_after=now_s + 30 * DAY_S,
        quota_per_month=20,
        explicit_special=frozenset(),
        influence_opt_in=False,
        agent_allowed=False,
        post_mortem=frozenset(),
        handling=Handling(name, "EU", ("EU",), "P30D", "twinvault owner withdraw", "twinvault owner history"),
    )


def _refused(company: Company, consent: ConsentId, purpose: Purpose) -> ApiError | None:
    """Ask, and return the service's refusal, or None if it answered."""
    try:
        company.ask(consent, NextChoice(PURCHASE, purpose, TOP_N))
    except ApiError as refusal:
        if refusal.status != _FORBIDDEN:
            raise
        return refusal
    return None


def _denial(owner: Owner) -> dict[str, Any]:
    """Return the newest denial in the owner's history; it is logged a moment after the refusal."""
    deadline = time.monotonic() + _LOGGED_S
    while time.monotonic() < deadline:
        denials = [event for event in owner.history() if event["kind"] == "denial"]
        if denials:
            return denials[-1]
        time.sleep(0.1)
    raise DemoFailed("The refusal does not appear in the household's history.")


def _mean_hits(codes: list[str], shops: Iterable[list[str]]) -> float:
    hits = [len(set(codes) & set(bought)) for bought in shops]
    return sum(hits) / len(hits)


def _words(codes: list[str]) -> str:
    return ", ".join(in_words(code) for code in codes)
