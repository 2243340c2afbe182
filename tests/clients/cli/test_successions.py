from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.client_kit import PASSPHRASE, Service
from vault.seal.kit import dump_kit, new_kit, parse_kit
from vault.seal.slot import new_device_secret


def test_a_stolen_key_is_replaced_and_an_interruption_loses_no_kit(
    run: Callable[..., Any], service: Service, tmp_path: Path
) -> None:
    kit, made, third = tmp_path / "kit", tmp_path / "newkit", tmp_path / "third"
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text(PASSPHRASE)
    after.write_text("another passphrase\n")
    run(
        "owner", "init", "--trust", service.trust_file, "--kit-file", kit, "--no-twin", "--passphrase-file", before
    )  # fmt: skip

    def succeed(old: Path, new: Path, **how: Any) -> Any:
        return run("owner", "succeed", "--kit", old, "--kit-file", new, "--passphrase-file", after, **how)

    assert "kit is the old one" in succeed(kit, kit, expect=1)
    assert "recovery kit is its title" in succeed(after, made, expect=1)
    assert not made.exists()
    interrupted = new_kit(new_device_secret())  # the kit was written, and then the machine failed
    made.write_text(dump_kit(interrupted))
    done = succeed(kit, made)
    assert parse_kit(made.read_text()) == interrupted
    assert (done["kit_file"], len(done["devices"])) == (str(made), 1)
    assert "owner unlock --kit" in run("owner", "devices", "--passphrase-file", before, expect=1)
    shown = run("owner", "devices", "--passphrase-file", after)["devices"]
    assert [one["device"] for one in shown] == done["devices"]
    assert "made last" in succeed(kit, third, expect=1)
    assert third.stat().st_mode & 0o777 == 0o600
    assert succeed(kit, made) == done
    assert succeed(made, third)["devices"] == done["devices"]
