"""What two verifiers are shown: bundles, audits and listings, with what the first says of each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinvault.auditor import UnreadableFile
from twinvault.audits import verify_audit
from vault.encoding import JsonObject, dump_json
from vault.proof.bundle import Bundle, dump_bundle, parse_bundle
from vault.proof.errors import MalformedProof
from vault.proof.listing import Listing, listing_lines
from vault.proof.report import Report, Step
from vault.proof.trust import TrustedRoot, dump_trust
from vault.proof.verify import verify_bundle

MANY = Path(__file__).with_name("verify_many.mjs")
Found = list[tuple[int, int | None]]


@dataclass
class Vectors:
    """Bundles with what the first verifier says of each, to be shown to the second."""

    folder: Path
    names: list[str] = field(default_factory=list)
    first: list[Report | None] = field(default_factory=list)

    def add(self, name: str, bundle: Bundle | bytes, trust: TrustedRoot) -> None:
        data = bundle if isinstance(bundle, bytes) else dump_bundle(bundle)
        place = self.folder / f"{len(self.names):05d}"
        place.with_suffix(".bundle").write_bytes(data)
        place.with_suffix(".trust").write_bytes(dump_trust(trust))
        try:
            self.first.append(verify_bundle(parse_bundle(data), trust))
        except MalformedProof:
            self.first.append(None)
        self.names.append(name)

    def add_audit(
        self,
        name: str,
        parts: Sequence[bytes],
        index: JsonObject,
        trust: TrustedRoot,
        listing: Listing | None = None,
    ) -> None:
        place = self.folder / f"{len(self.names):05d}"
        folder = place.with_suffix(".audit")
        folder.mkdir()
        for number, part in enumerate(parts):
            (folder / f"part-{number:06d}.bundle").write_bytes(part)
        (folder / "audit.json").write_bytes(dump_json(index))
        place.with_suffix(".trust").write_bytes(dump_trust(trust))
        if listing is not None:
            place.with_suffix(".listing").write_bytes(b"".join(listing_lines(listing)))
        try:
            self.first.append(verify_audit(folder, trust, listing))
        except UnreadableFile:
            self.first.append(None)
        self.names.append(name)

    def compare(self, dist: Path) -> None:
        """Demand that both look at as much, withhold as much, and find the same steps wrong at the same leaves."""
        run = subprocess.run(
            ["node", MANY, dist, self.folder], check=False, capture_output=True, text=True, timeout=600
        )
        assert run.returncode == 0, run.stderr
        second = [json.loads(line) for line in run.stdout.splitlines()]
        assert len(second) == len(self.names) > 0
        differ = {
            name: (one, other, said["failures"])
            for name, report, said in zip(self.names, self.first, second, strict=True)
            for one, other in [(_found(report), _said(said))]
            if one != other
        }
        assert differ == {}, "what the first found, and the second"

    def refused(self) -> int:
        return len(self.names) - len(self.accepted())

    def accepted(self) -> list[str]:
        """Return the names of those of which everything holds."""
        told = zip(self.names, self.first, strict=True)
        return [name for name, report in told if report is not None and not report.failures]


def _said(said: dict[str, Any]) -> tuple[Any, ...]:
    failures: Found = [(failure["step"], failure["leaf"]) for failure in said["failures"]]
    return said["leaves"], said["checked"], said["withheld"], said["erased"], sorted(failures, key=str)


def _found(report: Report | None) -> tuple[Any, ...]:
    if report is None:
        return 0, {}, {}, {}, [(Step.BUNDLE.value, None)]
    checked, withheld = (
        {step.name.lower(): count for step, count in counts.items()} for counts in (report.checked, report.withheld)
    )
    failures: Found = [(item.step.value, item.leaf_index) for item in report.failures]
    return report.leaves, checked, withheld, report.erased, sorted(failures, key=str)
