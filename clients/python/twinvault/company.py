"""The company's client: asks owners for consents, asks consented questions, returns only answers whose receipt holds.

company = Company.load(folder)
asked = company.request_consent(terms)             # send the owner's browser to asked.url
granted = company.wait(asked)
question = NextChoice(Category("pd:Purchase"), Purpose("dpv:ServicePersonalisation"), top_n=5)
answered = company.ask(granted.consent_id, question)
print(answered.answer.predictions)
file.write_bytes(answered.bundle)   # proves it to anyone, offline
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from twinvault.api import Api, ApiError, ClientError, field, json_of
from twinvault.asking import (
    DEADLINE_S,
    GRANTS_PATH,
    PUSH_PATH,
    Granted,
    Requested,
    browser_url,
    code_fields,
    granted_by,
    listen,
    new_asked,
    poll,
    push_fields,
    renewed_by,
    verify_landing,
)
from twinvault.company_auth import TOKEN_PATH, CompanyAuth
from twinvault.jws import company_id_of, jwk_of, key_of, sign_jws
from twinvault.prepared import Prepared
from twinvault.profile import Profile
from twinvault.receipts import VerifiedAnswer, answer_path, remember_checkpoint, verify_answered
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import JsonObject, b64u, dump_json
from vault.proof.jose import COMPANY_TYPE, QUESTION_TYPE, REQUEST_TYPE, parse_jws
from vault.proof.trust import TrustedRoot
from vault.schema.company import parse_company_name, parse_contact, parse_redirects
from vault.schema.consent import ConsentRequest, dump_consent_request, parse_consent_request
from vault.schema.question import Question, dump_question
from vault.schema.terms import Terms
from vault.seal.ids import ID_BYTES, ConsentId, sha256
from vault.seal.signing import SigningKey, new_seed

REGISTER_PATH: Final = "/v1/register"
_FORM: Final = "application/x-www-form-urlencoded"
_SEEDS: Final = ("question_seed", "auth_seed", "dpop_seed")
_NEXT: Final = "next"


class WrongTerms(ClientError):
    """A consent request for someone else."""

    slug = "wrong-terms"
    title = "Request names another company"


class Company:
    """A registered company; make it with `register` once, then `load`.

    Args:
        profile: Holds its keys and pins the service.
        api: The service.
        clock: Tells the time.
    """

    def __init__(self, profile: Profile, api: Api | None = None, clock: Clock | None = None) -> None:
        self.profile = profile
        self.company_id = profile.text("company_id")
        self._api = api or Api(profile.trust.issuer)
        self._clock = clock or SystemClock()
        self._issuer = profile.trust.issuer.rstrip("/")
        self._read_keys()

    def _read_keys(self) -> None:
        profile = self.profile
        self._question_key, auth_key, dpop_key = (SigningKey(profile.binary(name, 32)) for name in _SEEDS)
        self._auth = CompanyAuth(profile.trust, self.company_id, auth_key, dpop_key, self._clock)

    @classmethod
    def register(
        cls, folder: Path, trust: TrustedRoot, *, name: str, contact: str, agent: bool = False,
        redirect_uris: Collection[str] = (), api: Api | None = None, clock: Clock | None = None,
    ) -> tuple[Company, str]:  # fmt: skip
        """Make a company's keys and its signed record.

        Args:
            folder: Where its profile will lie.
            trust: The keys to pin.
            name: What owners are shown.
            contact: Where owners reach it.
            agent: Whether software decides by itself what to ask.
            redirect_uris: Addresses to which an owner's browser may be sent back: https, or
                `http://127.0.0.1/...` for a browser on this company's own machine.
            api: The service.
            clock: The machine's own if not given.

        Returns:
            The company, and its record, a compact JWS: the operator registers it.

        Raises:
            BadProfile: The folder exists.
            MalformedInput: The operator would have to refuse the name, the contact or an address; nothing was made.
        """
        clock = clock or SystemClock()
        seeds = {part: new_seed() for part in _SEEDS}
        question_key = SigningKey(seeds["question_seed"])
        company_id = company_id_of(key_of(question_key))
        claims: JsonObject = {
            "company_id": company_id,
            "version": 1,
            "name": parse_company_name(name),
            "contact": parse_contact(contact),
            "agent": int(agent),
            "redirect_uris": [*parse_redirects(redirect_uris)],
            "client_auth_key": jwk_of(SigningKey(seeds["auth_seed"])),
            "question_key": jwk_of(question_key),
            "issued_at": unix_s(clock.now()),
        }
        record = sign_jws(question_key, {"typ": COMPANY_TYPE}, claims)
        kept: JsonObject = {"kind": "company", "company_id": company_id, "name": name, "record": record}
        kept |= {"redirect_uris": claims["redirect_uris"]}
        kept |= {part: b64u(seed) for part, seed in seeds.items()}
        return cls(Profile.create(folder, trust, kept), api, clock), record

    @classmethod
    def load(cls, folder: Path, *, api: Api | None = None, clock: Clock | None = None) -> Company:
        """Read a company's profile.

        Raises:
            BadProfile: There is none, or it is not a company's.
        """
        return cls(Profile.load(folder), api, clock)

    def apply(self, *, sandbox: bool = False, invitation: str = "") -> str:
        """File this company at the service; it exists once the operator approved it (RFC 7591).

        Args:
            invitation: The operator's, an initial access token; with it there is room however many wait.
            sandbox: Be a test company for good, where the service has a sandbox: no approval, test vaults only.

        Returns:
            `pending`, or `sandbox`.

        Raises:
            ApiError: The service refuses.
        """
        key = {"keys": [jwk_of(SigningKey(self.profile.binary("auth_seed", 32)))]}
        uris = self.profile.record["redirect_uris"]
        filed = {"redirect_uris": uris, "jwks": key, "company_record": self.profile.text("record")}
        asked = {**filed, "sandbox": True} if sandbox else filed
        headers = {"Authorization": f"Bearer {invitation}"} if invitation else None
        answer = json_of(self._api.request("POST", REGISTER_PATH, json=asked, headers=headers))
        return str(field(answer, "company_status"))

    def rotate_keys(self) -> int:
        """Replace all keys of this company: new ones count from now on, and every token from before is over.

        The new keys lie in the profile before the service hears of them. Where the answer is lost, or this machine
        stops, run it again: it goes on with the same ones.

        Returns:
            The version of the record in force.

        Raises:
            ApiError: The service refuses; the keys stay as they are.
        """
        kept = self.profile.record.get(_NEXT) or self._next_keys()
        assert isinstance(kept, dict)
        record = str(kept["record"])
        if not self._is_in_force(record):
            keys = {"keys": [parse_jws(record, COMPANY_TYPE).unverified_claims["client_auth_key"]]}
            changed = {"redirect_uris": self.profile.record["redirect_uris"], "jwks": keys, "company_record": record}
            try:
                self._api.request("PUT", f"{REGISTER_PATH}/{self.company_id}", json=self._auth.authenticated(changed))
            except ApiError:
                # Sent twice, because the first answer was lost, it is refused the second time: the key is replaced then.
                if not self._is_in_force(record):
                    self.profile.keep({_NEXT: ""})
                    raise
        self.profile.keep({**kept, _NEXT: ""})
        self._read_keys()
        return int(str(parse_jws(record, COMPANY_TYPE).unverified_claims["version"]))

    def _is_in_force(self, record: str) -> bool:
        return bool(field(self._api.get(f"/v1/companies/{self.company_id}"), "record") == record)

    def _next_keys(self) -> JsonObject:
        seeds = {part: new_seed() for part in _SEEDS}
        claims = dict(parse_jws(self.profile.text("record"), COMPANY_TYPE).unverified_claims)
        claims |= {"version": int(str(claims["version"])) + 1, "issued_at": unix_s(self._clock.now())}
        claims["client_auth_key"] = jwk_of(SigningKey(seeds["auth_seed"]))
        claims["question_key"] = jwk_of(SigningKey(seeds["question_seed"]))
        record = sign_jws(self._question_key, {"typ": COMPANY_TYPE}, claims)
        kept: JsonObject = {"record": record, **{part: b64u(seed) for part, seed in seeds.items()}}
        self.profile.keep({_NEXT: kept})
        return kept

    def sign_request(self, terms: Terms) -> str:
        """Return a signed consent request, a compact JWS, to hand to an owner yourself.

        Args:
            terms: The widest terms that the owner may grant.

        Raises:
            WrongTerms: They name another grantee.
            BadConsent: No owner could take such a request.
        """
        if terms.grantee != self.company_id:
            raise WrongTerms("The terms name another grantee than this company; use its company id.")
        request = ConsentRequest(secrets.token_bytes(ID_BYTES), terms, unix_s(self._clock.now()))
        record = dump_consent_request(request)
        parse_consent_request(record)
        return sign_jws(self._question_key, {"typ": REQUEST_TYPE}, record)

    def request_consent(
        self, terms: Terms, *, renew: ConsentId | None = None, redirect_uri: str | None = None
    ) -> Requested:
        """Ask an owner through the service: send the browser to the `url` of what comes back, within 90 seconds.

        Args:
            terms: The widest terms that the owner may grant.
            renew: A consent that this company holds: its owner then finds the request without any browser.
            redirect_uri: Where the browser is sent back to; the first one registered if not given.

        Raises:
            WrongTerms: They name another grantee.
            ApiError: The service refuses, for example an address that was not registered.
        """
        asked = new_asked(self.sign_request(terms), redirect_uri or self._redirect_uri(), renew)
        auth = self._auth.form(push_fields(asked, terms))
        pushed = json_of(self._api.request("POST", PUSH_PATH, auth=auth))
        return replace(asked, url=browser_url(self._issuer, self.company_id, field(pushed, "request_uri")))

    def wait(
        self, asked: Requested, *, landed: str | None = None, deadline_s: float = DEADLINE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Granted:  # fmt: skip
        """Return what the owner gave, once it is decided.

        A renewal is read from the grant itself, ever more slowly. Otherwise the answer comes back with the
        browser: to this machine, if the redirect address is on it; else to your web server, which passes it on.

        Args:
            asked: From `request_consent`.
            landed: The whole address that the browser was sent back to, if your web server has it already.
            deadline_s: How long to wait, in seconds.
            sleep: Waits between two tries.

        Raises:
            NotGranted: The owner refused.
            NotDecided: The deadline passed, or the request waits no more.
            WrongLanding: What came back does not answer this request.
            ApiError: The service refuses the code: it was used before or is older than a minute.
        """
        if landed is None and asked.renew is not None:
            path = f"{GRANTS_PATH}/{b64u(asked.renew)}"
            return poll(
                lambda: renewed_by(asked, self._api.get(path, auth=self._auth)), deadline_s=deadline_s, sleep=sleep
            )
        if landed is None and not asked.comes_back_here:
            raise ClientError("The browser comes back to your web server; pass on the whole address as `landed`.")
        if landed is None:
            landed = listen(asked, deadline_s=deadline_s)
        code = verify_landing(asked, self._issuer, landed)
        auth = self._auth.form(code_fields(asked, code))
        return granted_by(json_of(self._api.request("POST", TOKEN_PATH, auth=auth)))

    def ask(self, consent_id: ConsentId, question: Question, question_id: bytes | None = None) -> VerifiedAnswer:
        """Ask a twin under a consent.

        Args:
            consent_id: The consent.
            question: What to ask.
            question_id: 16 bytes; give the same one again to repeat a question without spending quota.

        Raises:
            ApiError: The service denies it.
            Unreachable: No answer came; ask again with the same question id.
            NoReceipt: The answer does not prove that it is in the pinned log; it is not returned.
        """
        question_id = question_id or secrets.token_bytes(ID_BYTES)
        body = dump_json(dump_question(question))
        response = self._api.request(
            "PUT",
            answer_path(consent_id, question_id),
            auth=self._auth,
            content=body,
            headers={"Question-Signature": self._signature(consent_id, question_id, body)},
        )
        found = verify_answered(
            response.content, self.profile.trust, consent=consent_id, question_id=question_id, question=question,
            requester=self.company_id,
        )  # fmt: skip
        remember_checkpoint(self._api, self.profile, found.checkpoint)
        return found

    def prepare_token(self, nonce: str) -> Prepared:
        """Return a token request for any HTTP client to send.

        Args:
            nonce: From the `DPoP-Nonce` header of any answer of the service, at most a minute old.
        """
        url = self._issuer + TOKEN_PATH
        headers = {"DPoP": self._auth.proof("POST", url, nonce=nonce), "Content-Type": _FORM}
        form = self._auth.authenticated({"grant_type": "client_credentials"})
        return Prepared("POST", url, headers, urlencode(form))

    def prepare_question(self, consent_id: ConsentId, question: Question, *, token: str, nonce: str) -> Prepared:
        """Return a question for any HTTP client to send; what comes back is a bundle: verify it before you use it.

        Args:
            consent_id: The consent.
            question: What to ask.
            token: An access token that was issued to this company's DPoP key.
            nonce: As for `prepare_token`.
        """
        question_id, body = secrets.token_bytes(ID_BYTES), dump_json(dump_question(question))
        url = self._issuer + answer_path(consent_id, question_id)
        headers = {
            "Authorization": f"DPoP {token}",
            "DPoP": self._auth.proof("PUT", url, token, nonce),
            "Question-Signature": self._signature(consent_id, question_id, body),
            "Content-Type": "application/json",
        }
        return Prepared("PUT", url, headers, body.decode())

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()

    def _signature(self, consent_id: ConsentId, question_id: bytes, body: bytes) -> str:
        claims: JsonObject = {
            "iss": self.company_id,
            "aud": self._issuer,
            "consent": b64u(consent_id),
            "question": b64u(question_id),
            "body": b64u(sha256(body)),
            "iat": unix_s(self._clock.now()),
        }
        return sign_jws(self._question_key, {"typ": QUESTION_TYPE, "kid": key_of(self._question_key).kid}, claims)

    def _redirect_uri(self) -> str:
        uris = self.profile.record.get("redirect_uris")
        if not isinstance(uris, list) or not uris:
            raise ClientError("This company registered no address to send browsers back to; register with one.")
        return str(uris[0])
