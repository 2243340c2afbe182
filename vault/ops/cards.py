"""`twinvault operator models ...`: which models were released, and what each one's signed manifest shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlmodel import Session

from vault.clock import SystemClock
from vault.encoding import b64u
from vault.errors import VaultError
from vault.keys import statements
from vault.ops.site import Site
from vault.ops.terminal import HERE, AsJson, SiteFolder, say, transaction
from vault.proof import card as cards
from vault.proof.certificate import Manifest
from vault.seal.statement import KeyName

models_app = typer.Typer(no_args_is_help=True, help="List released models and make their cards.")


class NoSuchModel(VaultError):
    """No released model goes by that name."""

    slug = "no-such-model"
    title = "No such model"
    status = 404


@models_app.command("list")
def list_released(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """List models, newest first, with what they cost and whether they may serve today."""
    from vault.twin import release  # noqa: PLC0415  it brings torch, which the other commands need not load

    now = SystemClock().now()
    with transaction(site) as session:
        gone = release.withdrawn(session)
        found = [_shown(manifest, now, gone) for manifest in _manifests(session, site)]
    lines = (
        f"{one['model'][:12]}  {one['trained_at'] or 'built in':10}  epsilon {one['privacy']['epsilon']:.3f}  "
        f"{'may serve' if one['may_serve'] else one['refused_because']}"
        for one in found
    )
    say(as_json, {"models": found}, "\n".join(lines) or "No model was released.")


@models_app.command()
def withdraw(
    model: Annotated[str, typer.Argument(help="The model's name or its beginning.")],
    *,
    reason: Annotated[str, typer.Option(help="Why, for every auditor; names no person.", min=1)],
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Let a model answer no more, from now on and for good; it is logged with the reason."""
    from vault.twin import release  # noqa: PLC0415  it brings torch, which the other commands need not load

    with transaction(site) as session:
        meant = _named(_manifests(session, site), model)
        ended = release.withdraw(session, meant.digest, reason, now=SystemClock().now())
    name = b64u(meant.model_sha256)[:12]
    said = f"{name} answers no more." if ended is not None else f"{name} was withdrawn before."
    say(as_json, {"model": b64u(meant.model_sha256)}, said)


@models_app.command("card")
def make_card(
    model: Annotated[str, typer.Argument(help="The model's name or its beginning; the newest by default.")] = "",
    *,
    out: Annotated[Path | None, typer.Option(help="Write the page here; prints the path.")] = None,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Make a model's card from its signed manifest: JSON, and a page with plots that fetches nothing."""
    now = SystemClock().now()
    with transaction(site) as session:
        manifests = _manifests(session, site)
    chosen = _named(manifests, model) if model else next(iter(manifests), None)
    if chosen is None:
        raise NoSuchModel("No model was released; see `twinvault operator models list`.")
    name = b64u(chosen.model_sha256)[:12]
    file = out or Path(f"model-{name}.html")
    try:
        file.write_text(cards.page(chosen, now), encoding="utf-8")
    except OSError as error:
        raise NoSuchModel(f"The card cannot be written to {file}: {error.strerror}.") from error
    made = f"{datetime.fromtimestamp(chosen.trained_at, UTC):%Y-%m-%d}" if chosen.trained_at else "built in"
    say(as_json, cards.card(chosen, now) | {"page": str(file)}, f"Card of {name} ({made}) written to {file}.")


def _named(manifests: list[Manifest], model: str) -> Manifest:
    fitting = [one for one in manifests if b64u(one.model_sha256).startswith(model)]
    if not fitting:
        raise NoSuchModel(f"No released model's name begins with {model!r}; see `twinvault operator models list`.")
    if len(fitting) > 1:
        raise NoSuchModel(f"{len(fitting)} models' names begin with {model!r}; write more of the one that is meant.")
    return fitting[0]


def _shown(manifest: Manifest, now: datetime, withdrawn: frozenset[bytes]) -> dict[str, Any]:
    found = cards.card(manifest, now)
    if manifest.digest in withdrawn:
        found |= {"may_serve": False, "refused_because": "It was withdrawn."}
    return found


def _manifests(session: Session, site: Path) -> list[Manifest]:
    from vault.twin import release  # noqa: PLC0415  it brings torch, which the other commands need not load

    return release.manifests(session, statements.stated(session, Site(site).operator_key, KeyName.PROCESSOR_SIGN))
