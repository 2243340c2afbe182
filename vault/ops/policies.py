"""`twinvault operator policies ...`: check rules, see what they would change, publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vault.encoding import b64u
from vault.ops.terminal import HERE, AsJson, SiteFolder, say, transaction
from vault.policy import sets
from vault.policy.review import Case, Difference, compare, find_faults, read_cases
from vault.proof.decision import BadPolicySet, Decision, PolicySet, load_policy_folder, load_shipped_policy_set

policies_app = typer.Typer(no_args_is_help=True, help="Check, compare and publish the rules that decide.")

Folder = Annotated[Path, typer.Argument(help="Policy folder: *.cedar, schema.cedarschema, manifest.json, cases/.")]


@policies_app.command()
def check(folder: Folder, *, as_json: AsJson = False) -> None:
    """Validate the rules and run every case; exit status 1 unless the folder could be published."""
    rules, cases = _read(folder)
    faults = find_faults(rules, cases)
    record = {**_named(rules), "rules": len(rules.rules), "cases": len(cases), "faults": faults}
    verdict = f"{len(rules.rules)} rules, {len(cases)} cases: {'all hold.' if not faults else 'not acceptable.'}"
    say(as_json, record, "\n".join([*faults, verdict]))
    if faults:
        raise typer.Exit(1)


@policies_app.command()
def diff(
    folder: Folder,
    *,
    against: Annotated[
        Path | None, typer.Option(help="Another policy folder; by default the newest set published on the site.")
    ] = None,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show which rules were added, removed or changed, and which cases would be decided otherwise."""
    new, cases = _read(folder)
    old, old_cases = _read(against) if against else (_published(site), ())
    known = {case.name for case in cases}
    found = compare(old, new, [*cases, *(case for case in old_cases if case.name not in known)])
    record = {
        "old": _named(old),
        "new": _named(new),
        "added": found.added,
        "removed": found.removed,
        "changed": found.changed,
        "schema_changed": found.schema,
        "decisions": [
            {"case": case, "before": _shown(before), "after": _shown(after)} for case, before, after in found.decisions
        ],
    }
    say(as_json, record, "\n".join(_lines(found)) or "The two sets have the same rules and decide alike.")


@policies_app.command()
def publish(folder: Folder, *, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Keep a checked set for ever and log it; every process decides under it from its next start on."""
    rules, cases = _read(folder)
    faults = find_faults(rules, cases)
    if faults:
        raise BadPolicySet(f"Nothing is published: {faults[0]} Run `policies check` for the whole list.")
    with transaction(site) as session:
        leaf = sets.publish(session, rules)
    record = {**_named(rules), "published": leaf is not None}
    news = "is published. Restart app and worker: a process decides under one set from start to end."
    say(
        as_json, record, f"Version {rules.version} ({b64u(rules.sha256)}) {news if leaf else 'was published before.'}"
    )  # fmt: skip


def _read(folder: Path) -> tuple[PolicySet, tuple[Case, ...]]:
    return load_policy_folder(folder), read_cases(folder)


def _published(site: Path) -> PolicySet:
    with transaction(site) as session:
        return sets.find_newest(session) or load_shipped_policy_set()


def _named(rules: PolicySet) -> dict[str, object]:
    return {"version": rules.version, "sha256": b64u(rules.sha256)}


def _lines(found: Difference) -> list[str]:
    return [
        *(f"added    {rule}" for rule in found.added),
        *(f"removed  {rule}" for rule in found.removed),
        *(f"changed  {rule}" for rule in found.changed),
        *(["changed  schema"] if found.schema else []),
        *(f"case     {case}: {_shown(before)} -> {_shown(after)}" for case, before, after in found.decisions),
    ]


def _shown(decision: Decision) -> str:
    because = ", ".join(decision.reasons) or (decision.fault.value if decision.fault else "no rule permits it")
    return f"{'ALLOW' if decision.allowed else 'DENY'} ({because})"
