"""Which destinations are kept, and that no address is repeated, logged or readable by others."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.clients.destination_kit import COMPANY, SECRET, Webhook, add, event, tell
from twinvault import destinations
from twinvault.destinations import FILE, MAX_DESTINATIONS, BadDestination, Destinations, Undelivered
from twinvault.profile import BadProfile


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "no address that apprise knows"),
        ("mailtos://", "no address that apprise knows"),
        ("two words", "one word"),
        ("", "one word"),
        ("json://" + "a" * 2048, "one word"),
        (f"mailto://owner:{SECRET}@example.org", "in the clear"),
        (
            f"mailto://127.0.0.1/?smtp=mail.example.org&user={SECRET}&to=a@example.org&from=b@example.org",
            "in the clear",
        ),
        (f"json://example.org/{SECRET}", "in the clear"),
        (f"ntfy://example.org/{SECRET}", "in the clear"),
        (f"kodi://owner:{SECRET}@example.org", "in the clear"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_repeated(
    kept: Destinations, tmp_path: Path, url: str, why: str
) -> None:
    with pytest.raises(BadDestination, match=why) as refused:
        add(kept, url)
    assert SECRET not in refused.value.detail
    assert not (tmp_path / FILE).exists()


def test_a_destination_that_does_not_take_the_first_message_is_not_kept(kept: Destinations, webhook: Webhook) -> None:
    webhook.status = 403
    with pytest.raises(Undelivered, match="not kept"):
        add(kept, webhook.url)
    assert kept.read() == []


def test_destinations_are_listed_once_counted_and_forgotten(
    kept: Destinations, webhook: Webhook, tmp_path: Path
) -> None:
    add(kept, webhook.url)
    with pytest.raises(BadDestination, match="kept already"):
        add(kept, webhook.url)
    for number in range(1, MAX_DESTINATIONS):
        add(kept, f"{webhook.url}{number}")
    with pytest.raises(BadDestination, match="remove one first"):
        add(kept, f"{webhook.url}-one-more")
    for number in (0, 9, -1):
        with pytest.raises(BadDestination, match="none has the number"):
            kept.remove(number)
    for _ in range(MAX_DESTINATIONS):
        kept.remove(1)
    assert SECRET.encode() not in (tmp_path / FILE).read_bytes()
    assert tell(kept, event(1)) == []


def test_an_address_is_read_by_its_owner_only_and_logged_nowhere(
    kept: Destinations, webhook: Webhook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add(kept, webhook.url, details=True)
    webhook.status = 500
    with pytest.raises(Undelivered) as refused:
        tell(kept, event(1))
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [*caplog.records] == []
    assert SECRET not in refused.value.detail
    assert COMPANY not in refused.value.detail
    assert all(SECRET not in item.name for item in kept.read())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"destinations":1}',
        b'{"destinations":[1]}',
        b'{"destinations":[{"after":"1","details":0,"ending":[],"url":"json://x"}]}',
        b'{"destinations":[{"after":1,"details":2,"ending":[],"url":"json://x"}]}',
        b'{"destinations":[{"after":1,"details":0,"ending":[1],"url":"json://x"}]}',
        b'{"destinations":[{"after":1,"details":0,"ending":[],"url":"a b"}]}',
        b'{"destinations":[{"after":1,"details":0,"ending":[],"more":1,"url":"json://x"}]}',
    ],
)
def test_a_damaged_file_is_one_clear_error(kept: Destinations, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BadProfile):
        kept.read()
    with pytest.raises(BadProfile):
        tell(kept, event(1))
    assert (tmp_path / FILE).read_bytes() == content


def test_without_the_library_the_pip_line_is_said(
    kept: Destinations, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(destinations, "import_module", missing)
    with pytest.raises(BadDestination, match=r"twinvault\[notify\]"):
        add(kept, webhook.url)
