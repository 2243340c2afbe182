"""Routes for whoever runs or reads the service: liveness, readiness, metrics, version, problem types."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from vault.errors import VaultError
from vault.http.edge import DatabaseDep, returned

health_router = APIRouter(tags=["health"])


class UnknownProblem(VaultError):
    """A problem type that this server never answers with."""

    slug = "unknown-problem"
    title = "Unknown problem type"
    status = 404


@health_router.get("/livez")
def livez() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "alive"}


@health_router.get("/readyz")
def readyz(database: DatabaseDep) -> dict[str, str]:
    """Say that the database answers and has the schema; the log was compared with it at start."""
    with database.snapshot() as session:
        revision = session.connection().execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    return {"status": "ready", "revision": revision}


@health_router.get("/version")
def installed_version() -> dict[str, str]:
    """Return the release that runs."""
    return {"version": version("twinvault")}


@health_router.get("/metrics", response_class=Response, responses=returned("text/plain", "Metrics"))
def metrics() -> Response:
    """Return process metrics in the Prometheus text format; none names a person or company."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@health_router.get("/problems/{slug}")
def problem_type(slug: str) -> dict[str, Any]:
    """Explain one problem type."""
    pending = [VaultError]
    while pending:
        error = pending.pop()
        if error.slug == slug:
            return {
                "type": f"/problems/{slug}",
                "title": error.title,
                "status": error.status,
                "meaning": (error.__doc__ or "").partition("\n")[0],
            }
        pending.extend(error.__subclasses__())
    raise UnknownProblem("This server answers with no problem of that type; /openapi.json lists the routes.")
