"""TwinVault's clients: what owners, their devices, companies and auditors run."""

from __future__ import annotations

from twinvault.api import ApiError, ClientError
from twinvault.auditor import Auditor
from twinvault.company import Company
from twinvault.device import Device
from twinvault.owner import Owner
from twinvault.profile import Profile

__all__ = ["ApiError", "Auditor", "ClientError", "Company", "Device", "Owner", "Profile"]
