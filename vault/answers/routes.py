"""The route on which companies and owners ask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from vault.answers.ask import AnswerDesk, ask
from vault.answers.asked import Asked, CompanySender, OwnerSender, Sender, parse_body
from vault.answers.clerks import Clerks, Steps
from vault.answers.evenly import even_refusals
from vault.clock import Clock
from vault.db import Database
from vault.http.edge import ClockDep, DatabaseDep, documented, returned
from vault.http.middleware import SHORT_BYTES
from vault.parties.routes import caller_of, require_owner
from vault.schema.question import QUESTION_SCHEMA
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId

MEDIA_TYPE = "application/x-ndjson"

answers_router = APIRouter(prefix="/v1", tags=["answers"])


async def _question(request: Request, database: DatabaseDep, clock: ClockDep) -> bytes:
    """Return the body; a long one is read only of a caller whose headers hold.

    They are looked at once more when it is asked, and of a short body only then.
    """
    declared = request.headers.get("content-length")
    if declared is None or int(declared) > SHORT_BYTES:
        await run_in_threadpool(_sender, request, request.app.state.answer_desk, database, clock, clock.now())
    return await request.body()


QuestionBody = Annotated[bytes, Depends(_question)]


@answers_router.put(
    "/consents/{consent}/answers/{question_id}",
    response_class=Response,
    responses=returned(MEDIA_TYPE, "The bundle"),
    openapi_extra=documented(takes="application/json", body=QUESTION_SCHEMA, security=("company", "session")),
)
async def put_answer(
    *, consent: str, question_id: str, body: QuestionBody, request: Request, database: DatabaseDep, clock: ClockDep
) -> Response:
    """Answer a question under a consent; `question_id` is the asker's, and asking the same again repeats the answer.

    A company sends its DPoP-bound token and proof and signs the question in `Question-Signature`; the
    owner's session asks under the self consent. The answer is a bundle, which verifies offline.
    """
    desk, clerks = request.app.state.answer_desk, request.app.state.clerks
    assert isinstance(desk, AnswerDesk)
    assert isinstance(clerks, Clerks)
    headers = {"Cache-Control": "no-store"}

    def steps(begin: Callable[[], None]) -> Steps:
        begin()
        now = clock.now()
        sender = _sender(request, desk, database, clock, now)
        if isinstance(sender, CompanySender):
            headers["DPoP-Nonce"] = desk.gate.proofs.nonces.now(now)
        asked = Asked(ConsentId(parse_id(consent)), parse_id(question_id), parse_body(body), body, sender, now)
        return (yield from ask(desk, database, asked))

    async with even_refusals() as begin:
        answer = await clerks.answer(steps(begin), desk.sequencer, desk.checkpoint_wait_s)
    return Response(answer, headers=headers, media_type=MEDIA_TYPE)


def _sender(request: Request, desk: AnswerDesk, database: Database, clock: Clock, now: datetime) -> Sender:
    authorization = request.headers.getlist("authorization")
    if authorization and authorization[0].lower().startswith("bearer "):
        return OwnerSender(require_owner(caller_of(request, database, clock)))
    proofs, path = request.headers.getlist("dpop"), request.url.path
    verified = desk.gate.verify(authorization, proofs, method=request.method, path=path, now=now)
    return CompanySender(desk.gate, desk.issuer, verified, request.headers.get("question-signature", ""))
