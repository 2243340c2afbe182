"""Who is calling: typed, and made only after a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vault.parties.companies import CompanyId, CompanyStatus
from vault.proof.jose import JwsKey, Thumbprint
from vault.seal.ids import ConsentId, DeviceId, VaultId


@dataclass(frozen=True, slots=True)
class OwnerCaller:
    """The owner of a vault, signed in.

    Args:
        vault_id: The vault.
    """

    vault_id: VaultId


@dataclass(frozen=True, slots=True)
class WatcherCaller:
    """A program of a vault's owner that reads what happened while the owner is away.

    Args:
        vault_id: The vault.
    """

    vault_id: VaultId


@dataclass(frozen=True, slots=True)
class DeviceCaller:
    """A device of a vault, signed in.

    Args:
        vault_id: The vault.
        device_id: Which of its devices.
    """

    vault_id: VaultId
    device_id: DeviceId


Insider: TypeAlias = OwnerCaller | DeviceCaller | WatcherCaller
"""Whoever has a session of a vault."""


@dataclass(frozen=True, slots=True)
class CompanyCaller:
    """A company whose access token and proof of possession were checked.

    Args:
        company_id: Which company.
        status: As its row says now; policy refuses one that is suspended.
        agent: Whether it declared itself a software agent.
        version: Of its record in force.
        record: That record, a compact JWS, which names its keys.
        question_key: The key that must have signed its question.
        jkt: Thumbprint of the key that the request proved possession of.
        grant_id: The one consent that the token is for; None if it only names the company.
        sender_constrained: Whether the token is bound to a key; a bearer token never makes a caller.
    """

    company_id: CompanyId
    status: CompanyStatus
    agent: bool
    version: int
    record: str
    question_key: JwsKey
    jkt: Thumbprint
    grant_id: ConsentId | None
    sender_constrained: bool
