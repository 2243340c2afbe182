"""The route on which companies and owners ask."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vault.answers.ask import AnswerDesk, ask
from vault.answers.asked import Asked, CompanySender, OwnerSender, Sender, parse_body
from vault.answers.evenly import even_refusals
from vault.http.edge import ClockDep, DatabaseDep, RawBody, documented, returned
from vault.parties.routes import caller_of, require_owner
from vault.schema.question import QUESTION_SCHEMA
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId

MEDIA_TYPE = "application/x-ndjson"

answers_router = APIRouter(prefix="/v1", tags=["answers"])


@answers_router.put(
    "/consents/{consent}/answers/{question_id}",
    response_class=Response,
    responses=returned(MEDIA_TYPE, "The bundle"),
    openapi_extra=documented(takes="application/json", body=QUESTION_SCHEMA, security=("company", "session")),
)
def put_answer(
    *, consent: str, question_id: str, body: RawBody, request: Request, database: DatabaseDep, clock: ClockDep
) -> Response:
    """Answer a question under a consent; `question_id` is the asker's, and asking the same again repeats the answer.

    A company sends its DPoP-bound token and proof and signs the question in `Question-Signature`; the
    owner's session asks under the self consent. The answer is a bundle, which verifies offline.
    """
    desk = request.app.state.answer_desk
    assert isinstance(desk, AnswerDesk)
    now, headers = clock.now(), {"Cache-Control": "no-store"}
    authorization = request.headers.getlist("authorization")
    if authorization and authorization[0].lower().startswith("bearer "):
        sender: Sender = OwnerSender(require_owner(caller_of(request, database, clock)))
    else:
        gate = desk.gate
        proofs, path = request.headers.getlist("dpop"), request.url.path
        verified = gate.verify(authorization, proofs, method=request.method, path=path, now=now)
        sender = CompanySender(gate, desk.issuer, verified, request.headers.get("question-signature", ""))
        headers["DPoP-Nonce"] = gate.proofs.nonces.now(now)
    asked = Asked(ConsentId(parse_id(consent)), parse_id(question_id), parse_body(body), body, sender, now)
    with even_refusals():
        return Response(ask(desk, database, asked), headers=headers, media_type=MEDIA_TYPE)
