"""The command line: `twinvault owner`, `executor`, `company`, `auditor` and `witness`, and the server's commands where they are installed.

Results go to standard output (`--json` for programs), everything else to standard error.
Exit codes: 0 done; 1 refused, or something does not verify; 2 wrong usage, or a part is not
installed; 3 the service could not be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from twinvault.api import ApiError, Unreachable
from twinvault.cli.auditor import auditor
from twinvault.cli.authorities import authority_commands
from twinvault.cli.budget import budget_commands
from twinvault.cli.common import CLOSING, clean
from twinvault.cli.company import company
from twinvault.cli.consents import consent_commands
from twinvault.cli.destinations import destination_commands
from twinvault.cli.erase import erase_commands
from twinvault.cli.executor import executor
from twinvault.cli.freshness import freshness_commands
from twinvault.cli.ids import take_ids
from twinvault.cli.legacy import legacy_commands
from twinvault.cli.mirror import mirror_commands
from twinvault.cli.notices import notice_commands
from twinvault.cli.owner import owner
from twinvault.cli.server import add_server_commands
from twinvault.cli.witness import witness
from vault.errors import VaultError

REFUSED: Final = 1
UNREACHABLE: Final = 3

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A vault that gives your digital twin back to you.",
    epilog="Exit codes: 0 done; 1 refused or does not verify; 2 wrong usage or not installed; 3 service not reachable.",
)
owner.add_typer(consent_commands)
owner.add_typer(authority_commands)
owner.add_typer(budget_commands)
owner.add_typer(erase_commands)
owner.add_typer(mirror_commands)
owner.add_typer(freshness_commands)
owner.add_typer(notice_commands)
owner.add_typer(destination_commands)
owner.add_typer(legacy_commands, name="legacy")
app.add_typer(owner, name="owner")
app.add_typer(executor, name="executor")
app.add_typer(company, name="company")
app.add_typer(auditor, name="auditor")
app.add_typer(witness, name="witness")
add_server_commands(app)
take_ids(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit; a refusal is one sentence on standard error, never a traceback."""
    try:
        app(None if argv is None else list(argv), prog_name="twinvault")
    except Unreachable as error:
        _say(error.detail)
        sys.exit(UNREACHABLE)
    except VaultError as error:
        _say(error.detail, error.next_step if isinstance(error, ApiError) else "")
        sys.exit(REFUSED)
    except OSError as error:
        _say(f"{error.filename or 'A file'}: {error.strerror or type(error).__name__}.")
        sys.exit(REFUSED)
    finally:
        CLOSING.close()


def _say(*sentences: str) -> None:
    print("twinvault:", *(clean(sentence) for sentence in sentences if sentence), file=sys.stderr)  # noqa: T201  (a CLI speaks)
