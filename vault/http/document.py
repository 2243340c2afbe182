"""What the OpenAPI document says beyond what FastAPI reads from the routes."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

_ABOUT: Final = """\
Companies ask consented questions about a person's digital twin and get signed, logged predictions, never data.

A company's requests carry a DPoP-bound token and a proof (`company`); an owner's client carries a session
(`session`), for which it signs a challenge with a device's or the owner's key. Binary values are base64url without
padding, times are whole seconds since 1970 (UTC). Every refusal is a problem document (RFC 9457) whose `type` is
stable and explained under `/problems/{slug}`. The log under `/v1/log` is readable by anyone."""

_ID: Final = "0GMHk8kTnHn2vWzcZP0u3Q"
_HASH: Final = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
_PARAMETERS: Final[dict[str, tuple[str, object]]] = {
    "after": ("Cursor: only what comes after this number is returned.", 41),
    "client_id": ("Id of a company, 16 bytes.", _ID),
    "code": ("Eight letters that the page at `/authorize` shows, or the `request` of one in the list.", "BCDFGHJK"),
    "company_id": ("Id of a company, 16 bytes.", _ID),
    "compartment": ("Id of a compartment, 16 bytes.", _ID),
    "consent": ("Id of a consent, 16 bytes; a company knows it as `grant_id`.", _ID),
    "erasure": ("Id of an erasure, 16 bytes, as its acknowledgement gives it.", _ID),
    "from": ("Size of the older tree, in leaves.", 1),
    "grant_id": ("Id of a grant, 16 bytes; it is the consent's.", _ID),
    "index": ("leaf_index in the log.", 0),
    "language": ("Language of the sentences.", "en"),
    "last-event-id": ("Cursor of the last event that the client saw, where a stream goes on.", 41),
    "legacy": ("Id of a legacy plan, 16 bytes, as executors' shares name it.", _ID),
    "limit": ("How many entries are returned at most.", 256),
    "locator_hash": ("SHA-256 of the locator that a passphrase or recovery code gives.", _HASH),
    "path": ("Level, index and width of a tile, as C2SP tlog-tiles writes them.", "0/000"),
    "period": ("Calendar month (UTC); every month if none is named.", ["2026-10"]),
    "question_id": ("16 random bytes that the asker chose for one question; the same again repeats its answer.", _ID),
    "sha256": ("Digest of a policy set, 32 bytes.", _HASH),
    "since": ("First second, since 1970 (UTC).", 1_790_000_000),
    "slug": ("Last part of a problem's `type`.", "not-permitted"),
    "to": ("Size of the newer tree, in leaves.", 2),
    "until": ("First second that is no longer asked for, since 1970 (UTC).", 1_792_592_000),
    "vault": ("Id of a vault, 16 bytes.", _ID),
    "version": ("Version of a consent, from 1.", 1),
}


class DocumentedApp(FastAPI):
    """An app whose document says what it is for and what every parameter means."""

    def openapi(self) -> dict[str, Any]:
        """Return the document; made once.

        Raises:
            KeyError: A route has a parameter that nothing is said about.
        """
        if self.openapi_schema is None:
            document = super().openapi()
            document["info"]["description"] = _ABOUT
            for operations in document["paths"].values():
                for operation in operations.values():
                    for parameter in operation.get("parameters", ()):
                        parameter["description"], parameter["example"] = _PARAMETERS[parameter["name"]]
        return super().openapi()
