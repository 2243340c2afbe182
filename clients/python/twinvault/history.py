"""Who asked what about a vault, as its owner is shown it."""

from __future__ import annotations

from typing import Any

import httpx

from twinvault.api import Api, ApiError, field


def read_history(api: Api, auth: httpx.Auth, path: str, after: int) -> list[dict[str, Any]]:
    """Return the events of a vault, oldest first, however many pages the service makes of them.

    Args:
        api: The service.
        auth: The owner's session.
        path: The vault's address.
        after: Only events after this leaf index.

    Raises:
        ApiError: The service refuses, or its pages do not move on.
    """
    events: list[dict[str, Any]] = []
    while True:
        answer = api.get(f"{path}/history", auth=auth, params={"after": after})
        page = field(answer, "events", list)
        if not page:
            return events
        events += page
        if field(page[-1], "index", int) <= after:
            raise ApiError("unexpected-answer", 200, "The service's history does not move on.")
        after = page[-1]["index"]
