"""The company's client: asks consented questions and returns an answer only with a receipt that holds.

company = Company.load(folder)
question = NextChoice(Category("pd:Purchase"), Purpose("dpv:ServicePersonalisation"), top_n=5)
answered = company.ask(consent_id, question)
print(answered.answer.predictions)
file.write_bytes(answered.bundle)   # proves it to anyone, offline
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Final

import httpx

from twinvault.api import Api, ClientError, field, json_of, problem
from twinvault.jws import company_id_of, jwk_of, key_of, sign_jws
from twinvault.profile import Profile
from twinvault.receipts import VerifiedAnswer, answer_path, remember_checkpoint, verify_answered
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import JsonObject, b64u, dump_json
from vault.proof.jose import COMPANY_TYPE, QUESTION_TYPE, REQUEST_TYPE
from vault.proof.trust import TrustedRoot
from vault.schema.consent import ConsentRequest, dump_consent_request
from vault.schema.question import Question, dump_question
from vault.schema.terms import Terms
from vault.seal.ids import ID_BYTES, ConsentId, sha256
from vault.seal.signing import SigningKey, new_seed

TOKEN_PATH: Final = "/v1/token"  # noqa: S105  (a path)
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_S: Final = 60
_UNAUTHORIZED: Final = 401


class WrongTerms(ClientError):
    """A consent request for someone else."""

    slug = "wrong-terms"
    title = "Request names another company"


class CompanyAuth(httpx.Auth):
    """Authorises requests by a DPoP-bound token of client credentials; takes each nonce that the server asks for.

    Args:
        trust: Names the server.
        company_id: Its client id.
        auth_key: Authenticates it at the token endpoint.
        dpop_key: What its tokens are bound to.
        clock: Tells the time.

    Source: RFC 6749 section 4.4; RFC 7523; RFC 9449 sections 4, 7, 8 and 9.
    """

    requires_response_body = True

    def __init__(
        self, trust: TrustedRoot, company_id: str, auth_key: SigningKey, dpop_key: SigningKey, clock: Clock
    ) -> None:
        self._issuer = trust.issuer.rstrip("/")
        self._company_id = company_id
        self._auth_key = auth_key
        self._dpop_key = dpop_key
        self._clock = clock
        self._token = ""
        self._nonce = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with token and proof; once more with a fresh nonce or token where the server asks."""
        for left in (True, False):
            if not self._token:
                yield from self._fetch_token()
            url = str(request.url.copy_with(query=None, fragment=None))
            request.headers["Authorization"] = f"DPoP {self._token}"
            request.headers["DPoP"] = self._proof(request.method, url, self._token)
            response = yield request
            self._take_nonce(response)
            if response.status_code != _UNAUTHORIZED or not left:
                return
            if "use_dpop_nonce" not in response.headers.get("WWW-Authenticate", ""):
                self._token = ""

    def _fetch_token(self) -> Generator[httpx.Request, httpx.Response, None]:
        url = self._issuer + TOKEN_PATH
        for left in (True, False):
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self._assertion(),
            }
            response = yield httpx.Request("POST", url, data=form, headers={"DPoP": self._proof("POST", url)})
            self._take_nonce(response)
            if response.is_success:
                self._token = field(json_of(response), "access_token")
                return
            refusal = problem(response)
            if refusal.slug != "use_dpop_nonce" or not left:
                raise refusal

    def _assertion(self) -> str:
        now_s = unix_s(self._clock.now())
        claims: JsonObject = {
            "iss": self._company_id,
            "sub": self._company_id,
            "aud": self._issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": now_s,
            "exp": now_s + _ASSERTION_S,
        }
        return sign_jws(self._auth_key, {"typ": "client-authentication+jwt"}, claims)

    def _proof(self, method: str, url: str, token: str | None = None) -> str:
        claims: JsonObject = {
            "htm": method,
            "htu": url,
            "iat": unix_s(self._clock.now()),
            "jti": secrets.token_urlsafe(16),
        }
        if self._nonce:
            claims["nonce"] = self._nonce
        if token is not None:
            claims["ath"] = b64u(sha256(token.encode()))
        return sign_jws(self._dpop_key, {"typ": "dpop+jwt", "jwk": jwk_of(self._dpop_key)}, claims)

    def _take_nonce(self, response: httpx.Response) -> None:
        self._nonce = response.headers.get("DPoP-Nonce", self._nonce)


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
        self._question_key = SigningKey(profile.binary("question_seed", 32))
        auth_key, dpop_key = (SigningKey(profile.binary(name, 32)) for name in ("auth_seed", "dpop_seed"))
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
            redirect_uris: https addresses to which an owner's browser may be sent back.
            api: The service.
            clock: The machine's own if not given.

        Returns:
            The company, and its record, a compact JWS: the operator registers it.

        Raises:
            BadProfile: The folder exists.
        """
        clock = clock or SystemClock()
        seeds = {part: new_seed() for part in ("auth_seed", "question_seed", "dpop_seed")}
        question_key = SigningKey(seeds["question_seed"])
        company_id = company_id_of(key_of(question_key))
        claims: JsonObject = {
            "company_id": company_id,
            "version": 1,
            "name": name,
            "contact": contact,
            "agent": int(agent),
            "redirect_uris": [*sorted(redirect_uris)],
            "client_auth_key": jwk_of(SigningKey(seeds["auth_seed"])),
            "question_key": jwk_of(question_key),
            "issued_at": unix_s(clock.now()),
        }
        record = sign_jws(question_key, {"typ": COMPANY_TYPE}, claims)
        kept: JsonObject = {"kind": "company", "company_id": company_id, "name": name}
        kept |= {part: b64u(seed) for part, seed in seeds.items()}
        return cls(Profile.create(folder, trust, kept), api, clock), record

    @classmethod
    def load(cls, folder: Path, *, api: Api | None = None, clock: Clock | None = None) -> Company:
        """Read a company's profile.

        Raises:
            BadProfile: There is none, or it is not a company's.
        """
        return cls(Profile.load(folder), api, clock)

    def request_consent(self, terms: Terms) -> str:
        """Return a signed consent request, a compact JWS to hand to the owner.

        Args:
            terms: The widest terms that the owner may grant.

        Raises:
            WrongTerms: They name another grantee.
        """
        if terms.grantee != self.company_id:
            raise WrongTerms("The terms name another grantee than this company; use its company id.")
        request = ConsentRequest(secrets.token_bytes(ID_BYTES), terms, unix_s(self._clock.now()))
        return sign_jws(self._question_key, {"typ": REQUEST_TYPE}, dump_consent_request(request))

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
        claims: JsonObject = {
            "iss": self.company_id,
            "aud": self.profile.trust.issuer.rstrip("/"),
            "consent": b64u(consent_id),
            "question": b64u(question_id),
            "body": b64u(sha256(body)),
            "iat": unix_s(self._clock.now()),
        }
        signature = sign_jws(self._question_key, {"typ": QUESTION_TYPE, "kid": key_of(self._question_key).kid}, claims)
        response = self._api.request(
            "PUT",
            answer_path(consent_id, question_id),
            auth=self._auth,
            content=body,
            headers={"Question-Signature": signature},
        )
        found = verify_answered(
            response.content, self.profile.trust, consent=consent_id, question_id=question_id, question=question,
            requester=self.company_id,
        )  # fmt: skip
        remember_checkpoint(self._api, self.profile, found.checkpoint)
        return found

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()
