"""Asking the worker for something: all that the web process does about making twins and models."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.consent import consents
from vault.consent.consents import Consent
from vault.encoding import b64u
from vault.errors import VaultError
from vault.jobs import queue
from vault.jobs.queue import Job, JobId
from vault.schema.category import Purpose
from vault.schema.terms import ConsentKind
from vault.seal.ids import ConsentId, VaultId, new_id

REFRESH: Final = "refresh"
TRAIN: Final = "train"

REFRESH_PURPOSE: Final = Purpose("dpv:RequestedServiceProvision")
"""What a self consent must name for its twin to be kept."""

TRAIN_PURPOSE: Final = Purpose("dpv:ResearchAndDevelopment")
"""What a cohort consent must name for its traces to be trained on."""


class NoSelfConsent(VaultError):
    """A vault whose owner lets nobody keep a twin."""

    slug = "no-self-consent"
    title = "No consent to keep a twin"
    status = 409


def request_refresh(session: Session, vault: VaultId, *, now: datetime) -> JobId:
    """Ask for imprint rows of every closed day that has none; asking twice is asking once.

    Args:
        session: An open writing transaction.
        vault: Whose.
        now: The current time.

    Raises:
        NoSelfConsent: No live self consent says that a twin may be kept.
    """
    consent = self_consent(session, vault)
    if consent is None:
        raise NoSelfConsent("There is no live consent of your own to keep a twin; give it first.")
    return enqueue_refresh(session, vault, consent.consent_id, now=now)


def enqueue_refresh(session: Session, vault: VaultId, consent_id: ConsentId, *, now: datetime) -> JobId:
    """Ask for a refresh under a known consent; the worker decides whether it allows one."""
    payload = {"vault": b64u(vault), "consent": b64u(consent_id)}
    return queue.enqueue(session, REFRESH, {**payload}, waiting_key=refresh_key(vault), now=now)


def request_training(session: Session, now: datetime) -> JobId:
    """Ask for a new backbone of every category that has a feature map; only the operator does.

    Args:
        session: An open writing transaction.
        now: The current time.
    """
    # What is charged is named by this: a restored database gives a job's number to the next one.
    return queue.enqueue(session, TRAIN, {"training": b64u(new_id())}, waiting_key=TRAIN, now=now)


def last_refresh(session: Session, vault: VaultId) -> Job | None:
    """Return the newest refresh that was asked for."""
    return queue.latest(session, refresh_key(vault))


def forget(session: Session, vault: VaultId) -> None:
    """Drop every refresh of a vault, whatever became of it; erasure calls this."""
    queue.forget(session, refresh_key(vault))


def refresh_key(vault: VaultId) -> str:
    """Return what makes two refreshes of one vault the same."""
    return f"{REFRESH}/{b64u(vault)}"


def self_consent(session: Session, vault: VaultId) -> Consent | None:
    """Return the live self consent that lets a twin be kept, if there is one."""
    for consent in consents.list_for(session, vault):
        terms = consent.current.terms
        if consent.live and terms.kind is ConsentKind.SELF and REFRESH_PURPOSE in terms.purposes:
            return consent
    return None
