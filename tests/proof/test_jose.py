from __future__ import annotations

import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from tests.company_kit import b64, new_key, public, sign
from vault.proof.jose import MAX_JWS_CHARS, BadJws, parse_jwk, parse_jws, read_jwk

TYPE = "x+jwt"


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_a_foreign_signature_verifies_and_every_change_does_not(algorithm: str) -> None:
    key = new_key(algorithm)
    registered = read_jwk(public(key))
    assert registered.kid == key.thumbprint()
    text = sign(key, {"typ": TYPE, "kid": key.thumbprint()}, {"a": 1})
    assert parse_jws(text, TYPE).verify(registered) == {"a": 1}
    header, claims, signature = text.split(".")
    flipped = "B" if signature[0] != "B" else "C"
    for changed in (
        f"{header}.{b64(json.dumps({'a': 2}).encode())}.{signature}",
        f"{header}.{claims}.{flipped}{signature[1:]}",
        f"{header}.{claims}.{signature[:-4]}",
        f"{header}.{claims}.{signature}AAAA",
        f"{header}.{claims}.",
    ):
        with pytest.raises(BadJws):
            parse_jws(changed, TYPE).verify(registered)
    with pytest.raises(BadJws):
        parse_jws(text, TYPE).verify(read_jwk(public(new_key(algorithm))))


def test_eddsa_is_the_older_name_of_ed25519() -> None:
    key = new_key("Ed25519")
    modern = sign(key, {"typ": TYPE}, {"a": 1})
    header = b64(json.dumps({"alg": "EdDSA", "typ": TYPE}).encode())
    claims = modern.split(".")[1]
    signature = b64(key.private_key.sign(f"{header}.{claims}".encode()))
    assert parse_jws(f"{header}.{claims}.{signature}", TYPE).verify(read_jwk(public(key))) == {"a": 1}


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_the_public_key_is_no_hmac_secret(algorithm: str) -> None:
    key = new_key(algorithm)
    registered = read_jwk(public(key))
    header = b64(json.dumps({"alg": "HS256", "typ": TYPE}).encode())
    for secret in (registered.jwk.encode(), key.as_pem(private=False), public(key).get("x", "n").encode()):
        signing_input = f"{header}.{b64(b'{}')}"
        mac = b64(hmac.digest(secret, signing_input.encode(), "sha256"))
        with pytest.raises(BadJws, match="algorithm"):
            parse_jws(f"{signing_input}.{mac}", TYPE).verify(registered)


@pytest.mark.parametrize("alg", ["none", "None", "", "ES384", "RS256", "PS512", 1, ["ES256"]])
def test_no_other_algorithm_exists(alg: object) -> None:
    header = b64(json.dumps({"alg": alg, "typ": TYPE}).encode())
    with pytest.raises(BadJws, match="must use ES256"):
        parse_jws(f"{header}.{b64(b'{}')}.", TYPE).verify(read_jwk(public(new_key())))


def test_a_key_in_the_header_is_not_the_registered_one() -> None:
    attacker, registered = new_key(), new_key()
    forged = sign(attacker, {"typ": TYPE, "jwk": public(attacker)}, {"a": 1})
    with pytest.raises(BadJws, match="does not verify"):
        parse_jws(forged, TYPE).verify(read_jwk(public(registered)))


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}, {"jku": "https://x.example"}]
)
def test_a_header_parameter_that_is_not_understood_refuses(extra: dict[str, object]) -> None:
    header = b64(json.dumps({"alg": "ES256", "typ": TYPE, **extra}).encode())
    with pytest.raises(BadJws):
        parse_jws(f"{header}.{b64(b'{}')}.AA", TYPE)


def test_types_are_not_interchangeable() -> None:
    text = sign(new_key(), {"typ": "dpop+jwt"}, {})
    for other in (TYPE, None):
        with pytest.raises(BadJws, match="typ"):
            parse_jws(text, other)


def test_a_wrong_kid_refuses() -> None:
    key = new_key()
    text = sign(key, {"typ": TYPE, "kid": new_key().thumbprint()}, {})
    with pytest.raises(BadJws, match="key id"):
        parse_jws(text, TYPE).verify(read_jwk(public(key)))


def test_a_claim_given_twice_refuses() -> None:
    header, twice = b64(b'{"alg":"ES256","typ":"x+jwt"}'), b64(b'{"a":1,"a":2}')
    header_twice = b64(b'{"alg":"ES256","alg":"none","typ":"x+jwt"}')
    empty = b64(b"{}")
    for text in (f"{header}.{twice}.AA", f"{header_twice}.{empty}.AA"):
        with pytest.raises(BadJws, match="malformed"):
            parse_jws(text, TYPE)


def test_a_huge_text_refuses_before_it_is_decoded() -> None:
    with pytest.raises(BadJws, match="longer"):
        parse_jws("A" * (MAX_JWS_CHARS + 1), TYPE)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        [],
        "x",
        1,
        {"kty": "EC"},
        {"kty": ["EC"]},
        {"kty": "EC", "crv": 1, "x": "a", "y": "b"},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
        {"kty": "EC", "crv": "P-256", "x": "A" * 4000, "y": "A" * 43},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "!" * 43},
        {"kty": "RSA", "n": "AA", "e": "AQAB"},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        ECKey.generate_key("P-384").as_dict(private=False),
        ECKey.generate_key("secp256k1").as_dict(private=False),
        OKPKey.generate_key("X25519").as_dict(private=False),
        OKPKey.generate_key("Ed448").as_dict(private=False),
        OctKey.generate_key(256).as_dict(),
        ECKey.generate_key("P-256").as_dict(private=True),
    ],
)
def test_other_keys_refuse(jwk: object) -> None:
    with pytest.raises(BadJws):
        read_jwk(jwk)  # type: ignore[arg-type]  # anything may arrive


def test_a_weak_or_slow_rsa_key_refuses() -> None:
    strong = public(RSAKey.generate_key(2048))
    for changed in ({"e": b64(b"\x03")}, {"e": b64(b"\xff" * 256 + b"\x01")}, {"n": strong["n"][:-171]}):
        with pytest.raises(BadJws):
            read_jwk(strong | changed)


def test_one_key_has_one_thumbprint() -> None:
    jwk = public(new_key())
    padded = jwk | {"x": b64(b"\0" + int.from_bytes(_bytes(jwk["x"])).to_bytes(32))}
    with pytest.raises(BadJws, match="canonical"):
        read_jwk(padded)


def test_contradicting_kid_or_alg_refuses() -> None:
    jwk = public(new_key())
    for changed in ({"kid": "k1"}, {"alg": "Ed25519"}):
        with pytest.raises(BadJws):
            read_jwk(jwk | changed)
    described = read_jwk(jwk | {"use": "sig", "alg": "ES256"})
    assert parse_jwk(described.jwk) == described


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.binary().map(lambda data: ".".join([b64(data)] * 3))))
def test_any_text_raises_one_family(text: str) -> None:
    with pytest.raises(BadJws):
        parse_jws(text, TYPE)


_JSON = st.recursive(
    st.integers() | st.text(max_size=8), lambda part: st.lists(part) | st.dictionaries(st.text(), part)
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid"]),
        _JSON | st.sampled_from(["EC", "OKP", "RSA", "P-256", "Ed25519", "AQAB", "\ud800"]),
    )
)
def test_any_jwk_raises_one_family(jwk: dict[str, object]) -> None:
    with pytest.raises(BadJws):
        read_jwk(jwk)  # type: ignore[arg-type]  # anything may arrive


def _bytes(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
