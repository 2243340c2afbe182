from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from twinvault import profile as profiles
from twinvault.profile import BadProfile, Profile, RolledBack, write_private
from vault.proof.note import VerifierKey
from vault.proof.trust import TrustedRoot
from vault.seal.signing import SigningKey
from vault.seal.version import Remembered

KEY = SigningKey(bytes(32)).public_key
TRUST = TrustedRoot("https://vault.example", "vault.example/log", VerifierKey("vault.example/log", KEY), KEY)


def seen(version: int, byte: int = 1) -> Remembered:
    return Remembered(version, bytes([byte]) * 32)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return Profile.create(tmp_path / "home" / "me", TRUST, {"kind": "owner", "vault": "AAAA"})


def test_a_profile_is_private_and_reads_back(profile: Profile) -> None:
    assert profile.folder.stat().st_mode & 0o777 == 0o700
    for path in profile.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    loaded = Profile.load(profile.folder)
    assert (loaded.trust, loaded.record) == (TRUST, profile.record)


def test_a_profile_others_can_read_is_refused(profile: Profile) -> None:
    profile.folder.chmod(0o750)
    with pytest.raises(BadProfile, match="chmod 700"):
        Profile.load(profile.folder)


def test_a_profile_is_never_overwritten(profile: Profile) -> None:
    with pytest.raises(BadProfile):
        Profile.create(profile.folder, TRUST, {"kind": "other"})
    assert Profile.load(profile.folder).text("kind") == "owner"
    assert [path.name for path in profile.folder.parent.iterdir()] == ["me"]


def test_rollback_and_fork_are_refused_and_change_nothing(profile: Profile) -> None:
    profile.remember("ring", seen(5))
    with pytest.raises(RolledBack):
        profile.remember("ring", seen(4))
    with pytest.raises(RolledBack):
        profile.remember("ring", seen(5, 2))
    profile.remember("account", seen(1))
    assert Profile.load(profile.folder).remembered("ring") == seen(5)
    profile.remember("ring", seen(6, 2))
    assert Profile.load(profile.folder).remembered("ring") == seen(6, 2)
    assert Profile.load(profile.folder).remembered("account") == seen(1)


def test_a_crash_while_writing_leaves_the_old_file(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    profile.remember("ring", seen(1))

    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(profiles.os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        profile.remember("ring", seen(2))
    monkeypatch.undo()
    assert Profile.load(profile.folder).remembered("ring") == seen(1)
    assert not [path for path in profile.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"ring":1}', b'{"ring":{"version":"1","digest":"A"}}', b"\xff"]
)
def test_a_damaged_memory_is_refused_not_forgotten(profile: Profile, content: bytes) -> None:
    write_private(profile.folder / profiles.MEMORY, content)
    with pytest.raises(BadProfile, match="damaged"):
        profile.remembered("ring")


@pytest.mark.parametrize("name", [profiles.RECORD, profiles.TRUST])
def test_a_damaged_profile_is_refused(profile: Profile, name: str) -> None:
    write_private(profile.folder / name, b"{}" if name == profiles.TRUST else b"[")
    with pytest.raises(Exception, match=r"trust file|damaged"):
        Profile.load(profile.folder)
    (profile.folder / name).unlink()
    with pytest.raises(BadProfile, match="No profile"):
        Profile.load(profile.folder)


def _remember_many(folder: str, part: int) -> None:
    profile = Profile.load(Path(folder))
    for version in range(1, 21):
        profile.remember(f"consent/{part}", seen(version))


def test_processes_that_remember_at_once_lose_nothing(profile: Profile) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_remember_many, args=(str(profile.folder), part)) for part in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    for part in range(3):
        assert profile.remembered(f"consent/{part}") == seen(20)
