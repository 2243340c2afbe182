"""Configuration of the two processes; each reads only what it may hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Literal, TypeVar

import sqlalchemy
from pydantic import Field, HttpUrl, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound="Settings")

_DATABASES: Final = frozenset({"sqlite", "postgresql", "postgresql+psycopg"})


class Settings(BaseSettings):
    """What app and worker share. Environment variables carry the prefix `VAULT_`."""

    model_config = SettingsConfigDict(
        env_prefix="VAULT_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # a database URL may hold a password
    )

    database_url: str = Field(description="SQLAlchemy URL of the main database.")
    shortkeys_url: str = Field(description="SQLAlchemy URL of the short-key database, kept out of long backups.")
    operator_public_key: str = Field(pattern=r"^[A-Za-z0-9_-]{43}$", description="The pinned operator Ed25519 key.")
    cadence: Literal["monthly", "daily"] = Field(
        default="daily", description="How days become imprint rows; app and worker need the same."
    )
    log_level: str = Field(default="INFO", description="From which level on lines are logged, as Python names it.")
    supervisor: int | None = Field(
        default=None,
        ge=0,
        description="Inherited file descriptor of a pipe whose other end the supervisor alone holds.",
    )

    @field_validator("database_url", "shortkeys_url")
    @classmethod
    def _known(cls, url: str) -> str:
        try:
            name = sqlalchemy.make_url(url).drivername
        except (sqlalchemy.exc.ArgumentError, ValueError):
            name = ""
        if name not in _DATABASES:
            raise ValueError("must be sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")
        return url

    @field_validator("shortkeys_url")
    @classmethod
    def _separate(cls, url: str, info: object) -> str:
        data = getattr(info, "data", {})
        if url == data.get("database_url"):
            raise ValueError("short keys need a database of their own, or a backup would revive what was erased")
        return url


class AppSettings(Settings):
    """The web-facing process. It has no field for the worker's keyring, on purpose (invariant 2)."""

    app_keyring: Path = Field(description="Folder of the keys of serving, service and log.")
    issuer: HttpUrl = Field(description="Public base URL; token audience and DPoP `htu` are computed from it.")
    log_origin: str = Field(min_length=1, description="Origin line of the log's checkpoints.")
    log_anchor: Path | None = Field(
        default=None, description="File for the newest checkpoint, outside the database: it shows one set back."
    )
    log_journal: Path | None = Field(
        default=None, description="File for what a restored backup must not undo, outside the database."
    )
    log_witnesses: Path | None = Field(
        default=None, description="File that names the witnesses who cosign the log's checkpoints."
    )
    log_files: Path | None = Field(
        default=None, description="Folder for the log as static files (tlog-tiles), for any file server to publish."
    )
    retention_months: int | None = Field(
        default=None, ge=1, le=1_200, description="How many months before the current one are kept; all if not set."
    )
    sandbox: bool = Field(
        default=False, description="Let test companies register unapproved; only sandbox vaults may consent to them."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8400, ge=0, le=65535, description="Port to listen on; 0 for any free one.")
    listener: int | None = Field(
        default=None, ge=0, description="Inherited file descriptor of a socket that listens there already."
    )
    connection_counts: int | None = Field(
        default=None, ge=0, description="Inherited file descriptor of how many connections each process has."
    )
    place: int = Field(default=0, ge=0, description="Number of this process among those that accept from the listener.")
    max_body_bytes: int = Field(
        default=32 * 2**20, ge=2**16, description="Longest body of batches and rings; other routes take less."
    )
    checkpoint_wait_s: float = Field(
        default=5.0, gt=0, description="How long a request waits for the checkpoint over its leaf before it gets a 503."
    )

    @field_validator("issuer")
    @classmethod
    def _https_or_loopback(cls, url: HttpUrl) -> HttpUrl:
        if url.scheme == "http" and url.host not in {"127.0.0.1", "localhost", "[::1]"}:
            raise ValueError("plain http is for a loopback issuer only; use https")
        return url


class WorkerSettings(Settings):
    """The process that opens traces under a live self or cohort consent."""

    worker_keyring: Path = Field(description="Folder of the keys of processor and processor-sign.")
    poll_s: float = Field(default=0.5, gt=0, description="How often the worker looks for jobs.")


def own_settings(kind: type[S]) -> S:
    """Return this process's settings from its environment, or end it with what is wrong with them."""
    try:
        return kind()
    except ValidationError as error:
        sys.exit(f"twinvault: {sentences_of(error)}")


def sentences_of(error: ValidationError) -> str:
    """Return what is wrong with settings; it names them and never repeats their values."""
    return " ".join(
        f"VAULT_{'_'.join(map(str, item['loc'])).upper()}: {item['msg'].removeprefix('Value error, ')}."
        for item in error.errors()
    )
