"""Where a browser may be sent back to: https, or this very machine on whatever port is free."""

from __future__ import annotations

import pytest

from vault.errors import MalformedInput
from vault.schema.company import is_registered, parse_redirect

HERE, THERE = "http://127.0.0.1/cb", "https://acme.example/cb"


@pytest.mark.parametrize("uri", [THERE, HERE, "http://[::1]/", "https://acme.example:8443/cb?a=b"])
def test_https_and_the_loopback_interface_are_registered(uri: str) -> None:
    assert parse_redirect(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "http://acme.example/cb",
        "http://localhost/cb",
        "http://127.0.0.1:8080/cb",
        "http://127.0.0.1",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1@evil.example/cb",
        "http://127.0.0.1/cb#f",
        "http://127.0.0.2/cb",
        "http://[::2]/cb",
        "HTTP://127.0.0.1/cb",
        "https://acme.example/cb#f",
        "custom:/cb",
        "",
    ],
)
def test_other_addresses_refuse(uri: str) -> None:
    with pytest.raises(MalformedInput):
        parse_redirect(uri)


def test_a_loopback_address_may_be_asked_for_on_any_port_and_no_other_may() -> None:
    registered = (HERE, THERE)
    assert all(
        is_registered(uri, registered) for uri in (*registered, "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb")
    )
    wrong = [
        "http://127.0.0.1:65536/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:80/other",
        "http://127.0.0.1:80/cb?x=1", "http://[::1]:80/cb", "http://localhost:80/cb", "https://acme.example:443/cb",
        "http://127.0.0.1:80@evil.example/cb", "http://127.0.0.1:80:80/cb", "",
    ]  # fmt: skip
    assert [uri for uri in wrong if is_registered(uri, registered)] == []
    assert not is_registered("http://127.0.0.1:80/cb", (THERE,))
