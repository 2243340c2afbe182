"""What asking refuses beyond the rules themselves."""

from __future__ import annotations

from vault.errors import VaultError


class QuestionIdUsed(VaultError):
    """A question id that stands for another question, or for an answer that is no longer repeated."""

    slug = "question-id-used"
    title = "Question id is used"
    status = 409


class TwinNotReady(VaultError):
    """The owner's twin has no imprint row yet; a company is never told."""

    slug = "twin-not-ready"
    title = "Twin is not ready"
    status = 409
