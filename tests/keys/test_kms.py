"""The local keyring: keys stay private, names stay inside the folder, destroyed keys stay gone."""

from pathlib import Path

import pytest

from vault.keys.kms import KmsSigner, LocalKeyring, NoSuchKey, UnsafeKeyring
from vault.seal.errors import SealError
from vault.seal.signing import verify_signature


@pytest.fixture
def keyring(tmp_path: Path) -> LocalKeyring:
    made = LocalKeyring.create(tmp_path / "keyring")
    made.generate("serving/1")
    made.generate("service/1")
    return made


def test_wraps_are_bound_to_key_and_description(keyring: LocalKeyring) -> None:
    wrapped = keyring.wrap("serving/1", b"seed", b"about")
    assert keyring.unwrap("serving/1", wrapped, b"about") == b"seed"
    for name, aad in (("serving/1", b"other"), ("service/1", b"about")):
        with pytest.raises(SealError):
            keyring.unwrap(name, wrapped, aad)


def test_signatures_verify_under_the_public_key(keyring: LocalKeyring) -> None:
    signer = KmsSigner(keyring, "service/1")
    verify_signature(signer.public_key, signer.sign(b"data"), b"data")


def test_a_destroyed_key_opens_nothing_any_more(keyring: LocalKeyring, tmp_path: Path) -> None:
    wrapped = keyring.wrap("serving/1", b"seed", b"about")
    keyring.destroy("serving/1")
    keyring.destroy("serving/1")
    for again in (keyring, LocalKeyring(tmp_path / "keyring")):
        with pytest.raises(NoSuchKey):
            again.unwrap("serving/1", wrapped, b"about")


def test_a_key_is_never_overwritten(keyring: LocalKeyring) -> None:
    with pytest.raises(FileExistsError):
        keyring.generate("serving/1")


@pytest.mark.parametrize("name", ["../serving/1", "serving/0", "SERVING", "", "a/../b", "log\n"])
def test_names_never_leave_the_folder(keyring: LocalKeyring, name: str) -> None:
    with pytest.raises(NoSuchKey):
        keyring.sign(name, b"data")


def test_keys_that_others_may_read_are_refused(keyring: LocalKeyring, tmp_path: Path) -> None:
    (tmp_path / "keyring" / "serving.1.key").chmod(0o644)
    with pytest.raises(UnsafeKeyring, match="0600"):
        keyring.wrap("serving/1", b"seed", b"about")
    (tmp_path / "keyring").chmod(0o755)
    with pytest.raises(UnsafeKeyring, match="0700"):
        LocalKeyring(tmp_path / "keyring")
