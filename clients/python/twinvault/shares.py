"""Shares of a legacy secret: what an owner gives each executor, in words that can be printed.

Source: SLIP-39 (Shamir's secret sharing for mnemonic codes), by its reference implementation `shamir-mnemonic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import shamir_mnemonic

from twinvault.api import ClientError
from vault.encoding import JsonObject, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput, VaultError
from vault.proof.trust import TrustedRoot, dump_trust, parse_trust
from vault.seal.advance import Advance, lock_advance
from vault.seal.fields import Fields
from vault.seal.ids import VaultId, key_id
from vault.seal.legacy import legacy_key

_FORMAT: Final = "twinvault-share/1"
_ONE_GROUP: Final = 1
_NO_STRETCHING: Final = 0  # there is no passphrase whose guessing stretching would slow


class BadShare(ClientError):
    """A share that cannot be read, or shares that do not belong together."""

    slug = "bad-share"
    title = "Share cannot be used"


@dataclass(frozen=True, slots=True, repr=False)
class Share:
    """What one executor holds; by itself it tells nothing of the secret.

    Args:
        trust: The keys that the owner pinned: where the vault lives, and whose log shows what happens to it.
        vault: About whose vault.
        legacy_key: Public key that the executors sign with together, 32 bytes.
        threshold: How many shares it takes.
        number: Which of them this is, from 1.
        words: The share itself, SLIP-39 words.
        sealed: Consents sealed in advance, locked under the secret.
    """

    trust: TrustedRoot
    vault: VaultId
    legacy_key: bytes
    threshold: int
    number: int
    words: str
    sealed: tuple[bytes, ...] = ()

    @property
    def legacy_id(self) -> bytes:
        """By what the service finds the plan."""
        return key_id(self.legacy_key)


def split(
    secret: bytes, trust: TrustedRoot, vault: VaultId, *, threshold: int, shares: int, sealed: Sequence[Advance] = ()
) -> list[Share]:
    """Split a legacy secret; forget it afterwards.

    Args:
        secret: 32 random bytes.
        trust: The keys that the owner pinned.
        vault: About whose vault.
        threshold: How many shares it takes, at least 2.
        shares: How many there are, at most 16.
        sealed: Consents sealed in advance, of which each executor gets a locked copy.

    Guarantees: any `threshold` of them give the secret back, and fewer tell nothing of it.
    """
    ((*words,),) = shamir_mnemonic.generate_mnemonics(
        _ONE_GROUP, [(threshold, shares)], secret, iteration_exponent=_NO_STRETCHING
    )
    public_key = legacy_key(secret).public_key
    locked = tuple(lock_advance(item, secret, vault) for item in sealed)
    return [Share(trust, vault, public_key, threshold, number, text, locked) for number, text in enumerate(words, 1)]


def combine(shares: Sequence[Share]) -> bytes:
    """Return the secret; keep it no longer than one signature takes.

    Args:
        shares: At least as many as it takes; more are left out.

    Raises:
        BadShare: Too few, one twice, of different plans, mistyped, or together they give another key than the plan's.
    """
    # Whose service and log is asked is the first share's word: no other executor may be led elsewhere by it.
    if not shares or len({(one.trust, one.vault, one.legacy_key, one.threshold) for one in shares}) != 1:
        raise BadShare("The shares are of different plans or services, or there is none; use those of the newest plan.")
    if len({one.words for one in shares}) != len(shares):
        raise BadShare("The same share was given twice.")
    needed = shares[0].threshold
    if len(shares) < needed:
        raise BadShare(f"It takes {needed} shares; {len(shares)} were given.")
    try:
        secret: bytes = shamir_mnemonic.combine_mnemonics([one.words for one in shares[:needed]])
    except (shamir_mnemonic.MnemonicError, ValueError) as error:
        raise BadShare("The shares do not give the legacy key; one of them is damaged or of another plan.") from error
    if legacy_key(secret).public_key != shares[0].legacy_key:
        raise BadShare("The shares give another key than the plan's; one of them is of another plan.")
    return secret


def dump_share(share: Share) -> bytes:
    """Return a share's file."""
    return dump_json(
        {
            "format": _FORMAT,
            "trust": parse_json(dump_trust(share.trust)),
            "vault": b64u(share.vault),
            "legacy_key": b64u(share.legacy_key),
            "threshold": share.threshold,
            "number": share.number,
            "words": share.words,
            "sealed": [b64u(item) for item in share.sealed],
        }
    )


def parse_share(data: bytes) -> Share:
    """Read a share's file.

    Raises:
        BadShare: It is none, or its words are mistyped.
    """
    try:
        fields = Fields(parse_json(data))
        if fields.text("format") != _FORMAT:
            raise BadShare(f"The file is no share of the format {_FORMAT}.")
        trust: JsonObject = fields.object("trust")
        share = Share(
            parse_trust(dump_json(trust)),
            VaultId(fields.id("vault")),
            fields.public_key("legacy_key"),
            fields.integer("threshold", least=1),
            fields.integer("number", least=1),
            fields.text("words", most=2_000),
            tuple(parse_b64u(item) for item in fields.items("sealed")),
        )
        fields.end()
        shamir_mnemonic.Share.from_mnemonic(share.words)
    except (MalformedInput, VaultError) as error:
        raise BadShare(f"The share cannot be read: {error.detail}") from error
    except (shamir_mnemonic.MnemonicError, ValueError) as error:
        raise BadShare(
            f"The words of share {share.number} do not check: one is mistyped, missing or out of place."
        ) from error
    return share
