"""`twinvault witness`: cosign other people's logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinvault.cli import common
from twinvault.cli.common import AsJson, TrustFile
from twinvault.profile import read_trust
from twinvault.witness import Witness, server

witness = typer.Typer(
    no_args_is_help=True, help="Cosign other people's logs, so that none can show two parties two histories."
)

_Folder = Annotated[Path, typer.Argument(help="The witness's own folder.")]


@witness.command()
def init(
    folder: _Folder,
    *,
    name: Annotated[str, typer.Option("--name", help="What it signs as, such as witness.example/1.")],
    as_json: AsJson = False,
) -> None:
    """Make a witness and print its key, which operators and verifiers need."""
    common.emit({"key": Witness.init(folder, name).key.text}, as_json=as_json)


@witness.command()
def watch(folder: _Folder, *, trust: TrustFile, as_json: AsJson = False) -> None:
    """Cosign the log of a trust file too, from the next start on."""
    log = read_trust(trust).log
    common.emit({"log": log.text, "witness": Witness(folder).watch(log).key.text}, as_json=as_json)


@witness.command()
def serve(
    folder: _Folder,
    *,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 for any free one.", min=0, max=65535)] = 8500,
    as_json: AsJson = False,
) -> None:
    """Answer logs until interrupted."""
    with server(Witness(folder), host, port) as listening:
        common.emit({"url": f"http://{host}:{listening.server_port}"}, as_json=as_json)
        listening.serve_forever()
