"""Writes the vectors beside it: `python -m tests.vectors.ed25519.make`. The same bytes each time.

A file holds one message and every special key and signature over it (`tests/curve.py`); of each it says whether the
rule of `docs/protocol.md` takes it. Binary values are hexadecimal.
"""

from __future__ import annotations

from pathlib import Path

from tests.curve import Forgery, forgeries

HERE = Path(__file__).parent
MESSAGES = {"empty": b"", "short": b"twinvault", "long": bytes(range(256)) * 8}
# RFC 8032, section 7.1, tests 1 to 3.
STANDARD = {
    "": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "72": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "af82": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
}


def main() -> None:
    """Write every file."""
    for name, message in MESSAGES.items():
        write(name, message, list(forgeries(message)))
    for number, (message_hex, pair) in enumerate(STANDARD.items(), start=1):
        key, signature = map(bytes.fromhex, pair)
        write(f"rfc8032-{number}", bytes.fromhex(message_hex), [Forgery("standard", key, signature, accepted=True)])


def write(name: str, message: bytes, cases: list[Forgery]) -> None:
    """Write one file: the message, and after an empty line each case."""
    blocks = [f"message: {message.hex()}\n"]
    for case in cases:
        expect = "ok" if case.accepted else "bad-seal"
        blocks.append(
            f"name: {case.name}\nkey: {case.key.hex()}\nsignature: {case.signature.hex()}\nexpect: {expect}\n"
        )
    (HERE / f"{name}.txt").write_text("\n".join(blocks))


if __name__ == "__main__":
    main()
