"""TwinVault's clients: what owners, their devices, companies and auditors run."""

from __future__ import annotations

from twinvault.api import ApiError, ClientError
from twinvault.auditor import Auditor
from twinvault.company import Company
from twinvault.device import Device
from twinvault.owner import Owner
from twinvault.profile import Profile
from vault.schema.question import NextChoice, Propensity, Recommend
from vault.seal.fields import parse_id

__all__ = [
    "ApiError",
    "Auditor",
    "ClientError",
    "Company",
    "Device",
    "NextChoice",
    "Owner",
    "Profile",
    "Propensity",
    "Recommend",
    "parse_id",
]
