"""Clients that other people wrote drive the whole flow; a company needs nothing of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.client_kit import PURCHASE
from tests.company_kit import REDIRECT
from tests.http_kit import PURPOSE, QUESTION, House, serving, session_of
from twinvault.owner import Owner
from vault.encoding import b64u, dump_json
from vault.oauth import registration
from vault.parties.companies import CompanyId
from vault.proof.jose import parse_jws
from vault.proof.trust import dump_trust
from vault.schema.answer import parse_answer
from vault.schema.question import body_sha256, dump_question
from vault.schema.terms import ConsentKind, Terms, dump_terms

pytestmark = pytest.mark.needs_npm

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and the packages that they need."""
    folder = tmp_path_factory.mktemp("npm")
    for path in [*HERE.glob("*.mjs"), HERE / "package.json"]:
        shutil.copy(path, folder)
    npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(npm, cwd=folder, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def owner(house: House) -> Owner:
    return house.owner_with_twin((1,))


class Script:
    """A Node script that is spoken to in lines of JSON."""

    def __init__(self, folder: Path, name: str) -> None:
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            ["node", name], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def say(self, **value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise AssertionError(self._process.stderr.read())
        return dict(json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)


def decide(house: House, owner: Owner, code: str, *, allow: bool) -> None:
    """Answer what waits under a code, as an owner's client does."""
    path, session = f"/v1/authorizations/{code}", session_of(owner)
    asked = house.http.get(path, headers=session)
    assert asked.status_code == 200, asked.text
    if not allow:
        assert house.http.post(f"{path}/deny", headers=session).status_code == 204
        return
    given = owner.give_company(owner.read_request(asked.json()["request"])).version
    body = {"consent": b64u(given.consent_id)}
    assert house.http.post(f"{path}/approve", json=body, headers=session).status_code == 204


def wanted(owner: Owner) -> Terms:
    own = owner.terms_for(ConsentKind.SELF, [PURCHASE])
    return replace(own, kind=ConsentKind.COMPANY, grantee="x", purposes=frozenset({PURPOSE}), quota_per_month=50)


def play(script: Script, house: House, owner: Owner, algorithm: str, *decisions: bool) -> dict[str, Any]:
    """Let the operator register the script's company and the owner decide; return what the script found."""
    try:
        question = dump_json(dump_question(QUESTION)).decode()
        trust = json.loads(dump_trust(house.service.trust))
        with house.database.transaction() as session:
            invitation = registration.invite(session, now=house.clock.now())
        asked = {"issuer": house.url, "authAlg": algorithm, "redirectUri": REDIRECT, "question": question}
        script.say(**asked, trust=trust, invitation=invitation)
        made = script.hear()
        assert made["early"] == "invalid_client", "before the operator approves it is nobody"
        with house.database.transaction() as session:
            (waiting,) = registration.list_waiting(session)
            assert waiting.invited, "the library sent the invitation"
            registration.approve(session, CompanyId(made["registered"]["client_id"]), now=house.clock.now())
        script.say(terms=dump_terms(wanted(owner)))
        for allow in decisions:
            decide(house, owner, script.hear()["code"], allow=allow)
        return script.hear()
    finally:
        script.close()


def proves_an_answer(told: dict[str, Any]) -> None:
    """Check what Node made of the bundle with the pinned log key and its own crypto."""
    verified, answer = told["verified"], told["verified"]["answer"]
    assert verified["leaves"] > 1
    assert parse_answer(dump_json(answer)).kind is QUESTION.kind
    assert answer["body_sha256"] == b64u(body_sha256(QUESTION))
    assert told["believed"] == [], "each lie about the bundle is noticed"


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "Ed25519"])
def test_openid_client_drives_the_whole_flow(scripts: Path, house: House, owner: Owner, algorithm: str) -> None:
    told = play(Script(scripts, "with_openid_client.mjs"), house, owner, algorithm, True, False)
    tokens, grant = told["tokens"], told["tokens"]["grant_id"]
    assert told["answerStatus"] == 200
    proves_an_answer(told)
    assert tokens["token_type"] == "dpop"
    assert tokens["authorization_details"][0]["type"] == "twin_query"
    assert told["introspected"]["active"] is True
    assert told["introspected"]["grant_id"] == grant
    assert told["queried"]["grant_id"] == grant
    assert told["afterRevocation"] == {"active": False}
    assert parse_jws(tokens["access_token"], "at+jwt").unverified_claims["grant_id"] == grant
    assert told["refusals"] == {
        "denied": "access_denied",
        "plainPkce": "invalid_request",
        "badRedirect": "invalid_request",
        "badDetails": "invalid_authorization_details",
        "noChallenge": "invalid_request",
        "twice": "invalid_request",
        "otherResource": "invalid_target",
        "directAuthorize": 400,
        "requestUriReplay": 400,
        "bearerReplay": 401,
        "wrongHtu": 401,
        "otherKey": 401,
        "honestProof": 200,
        "replayedProof": 401,
        "codeReuse": "invalid_grant",
        "afterCodeReuse": "invalid_grant",
    }


def test_oauth4webapi_drives_it_by_hand(scripts: Path, house: House, owner: Owner) -> None:
    told = play(Script(scripts, "with_oauth4webapi.mjs"), house, owner, "ES256", True, False, True)
    assert told["resource"]["authorization_servers"] == [house.url]
    assert told["resource"]["dpop_bound_access_tokens_required"] is True
    assert told["noncesLearned"] is True
    assert told["answerStatus"] == 200
    proves_an_answer(told)
    assert told["introspected"]["active"] is True
    assert told["revoked"] == 200
    assert told["afterRevocation"] == {"active": False}
    assert told["refusals"] == {
        "otherIssuer": "OperationProcessingError",
        "twice": "invalid_request",
        "noChallenge": "invalid_request",
        "plainPkce": "invalid_request",
        "badRedirect": "invalid_request",
        "badDetails": "invalid_authorization_details",
        "otherClient": "invalid_client",
        "noAuthentication": "invalid_client",
        "revokedRefresh": "invalid_grant",
        "directAuthorize": 400,
        "requestUriReplay": 400,
        "denied": "access_denied",
        "wrongVerifier": "invalid_grant",
        "bearerReplay": 401,
        "withoutNonce": "use_dpop_nonce",
        "otherKey": "invalid_token",
        "honestProof": 200,
        "replayedProof": "invalid_dpop_proof",
        "wrongHtu": "invalid_dpop_proof",
        "twiceAtToken": "invalid_request",
        "codeReuse": "invalid_grant",
    }
