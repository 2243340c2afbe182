"""Signing keys change without breaking what is in flight, and an old key signs nothing new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vault.clock import unix_s
from vault.oauth.metadata import jwks
from vault.oauth.tokens import TOKEN_S, TokenMint
from vault.parties.companies import CompanyId
from vault.proof.jose import BadJws, Thumbprint
from vault.seal.signing import SigningKey, new_seed

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ISSUER = "https://vault.example"
COMPANY, JKT = CompanyId("c" * 22), Thumbprint("t" * 43)


def test_keys_rotate_with_overlap() -> None:
    old_key, new_key = SigningKey(new_seed()), SigningKey(new_seed())
    old = TokenMint(ISSUER, old_key)
    new = TokenMint(ISSUER, new_key, {old_key.public_key: unix_s(NOW) + TOKEN_S})
    before = old.issue(COMPANY, JKT, None, now=NOW)
    assert new.verify(before, now=NOW + timedelta(seconds=TOKEN_S - 1)).company_id == COMPANY
    published = jwks(new)["keys"]
    assert [key["kid"] for key in published] == [key.kid for key in new.public_keys]
    assert len(published) == 2
    assert published[0]["kid"] == jwks(TokenMint(ISSUER, new_key))["keys"][0]["kid"], "the one in force first"


def test_a_stolen_old_key_makes_no_token_that_outlives_the_overlap() -> None:
    old_key = SigningKey(new_seed())
    new = TokenMint(ISSUER, SigningKey(new_seed()), {old_key.public_key: unix_s(NOW) + TOKEN_S})
    late = NOW + timedelta(seconds=TOKEN_S)
    forged = TokenMint(ISSUER, old_key).issue(COMPANY, JKT, None, now=late, lifetime_s=10**6)
    with pytest.raises(BadJws):
        new.verify(forged, now=late)


def test_a_key_that_never_was_ours_signs_nothing() -> None:
    with pytest.raises(BadJws):
        TokenMint(ISSUER, SigningKey(new_seed())).verify(
            TokenMint(ISSUER, SigningKey(new_seed())).issue(COMPANY, JKT, None, now=NOW), now=NOW
        )
