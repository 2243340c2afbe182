"""Who asked what about a vault, as its owner is shown it: page by page, or as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from twinvault.api import Api, ApiError, Unreachable, field
from twinvault.signin import SignedIn
from vault.schema.language import Language

_PAUSE_S: Final = 2.0


def read_history(
    api: Api, auth: SignedIn, path: str, after: int, language: Language = Language.EN
) -> list[dict[str, Any]]:
    """Return the events of a vault, oldest first, however many pages the service makes of them.

    Args:
        api: The service.
        auth: The owner's session.
        path: The vault's address.
        after: Only events after this leaf index.
        language: Of the sentences.

    Raises:
        ApiError: The service refuses, or its pages do not move on.
    """
    events: list[dict[str, Any]] = []
    while True:
        params = {"after": after, "language": str(language)}
        answer = api.get(f"{path}/history", auth=auth, params=params)
        page = field(answer, "events", list)
        if not page:
            return events
        events += page
        after = _moved_on(page[-1], after)


def follow_history(
    api: Api, auth: SignedIn, path: str, after: int, language: Language = Language.EN
) -> Iterator[dict[str, Any]]:
    """Yield the events of a vault, those that are there and then each as it is logged, without end.

    A stream that ends, or breaks, is opened again where it ended. Arguments as `read_history`.

    Raises:
        ApiError: The service refuses, or its events do not move on.
        Unreachable: The service cannot be reached at the beginning.
    """
    for event in read_history(api, auth, path, after, language):
        after = _moved_on(event, after)
        yield event
    while True:
        try:
            params = {"after": after, "language": str(language)}
            with api.stream(f"{path}/history/stream", auth=auth, params=params) as lines:
                for event in _events(lines):
                    after = _moved_on(event, after)
                    yield event
        except ApiError as refusal:
            if refusal.retry_after_s is None:
                raise
            api.pause(refusal.retry_after_s)
        except Unreachable:
            api.pause(_PAUSE_S)


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read the data of server-sent events; everything else in them is for the connection only."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            try:
                event = json.loads("\n".join(data))
            except ValueError as error:
                raise ApiError("not-json", 200, "The service sent an event that is not JSON.") from error
            data.clear()
            yield event


def _moved_on(event: Any, after: int) -> int:
    index: int = field(event, "index", int)
    if index <= after:
        raise ApiError("unexpected-answer", 200, "The service's history does not move on.")
    return index
