"""`twinvault operator journal ...`: what to do when the journal is lost."""

from __future__ import annotations

import time

import typer

from vault.clock import SystemClock
from vault.ops.site import Site
from vault.ops.terminal import HERE, AsJson, SiteFolder, say, transaction
from vault.recovery import end_issued
from vault.tlog import log

journal_app = typer.Typer(no_args_is_help=True, help="Look after the journal of withdrawals, charges and erasures.")


@journal_app.command()
def begin(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Begin a new journal and accept that the old one is lost: what it alone knew stays forgotten. Stop the service first."""
    journal = Site(site.resolve()).journal
    with transaction(site) as session:
        size = log.tree_size(session)
        if journal is not None:
            journal.set_aside(f"{time.time_ns()}")
            journal.begin(size)
        end_issued(session, now=SystemClock().now())
        log.call_compared(session)
    say(
        as_json,
        {"begins_at": size},
        f"A new journal begins at leaf {size}. Withdrawals and charges that only the old one knew are lost: tell the"
        " owners. Start the service again.",
    )
