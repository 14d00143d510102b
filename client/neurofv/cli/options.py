"""Options that commands share."""

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.message import Message

from neurofv.connection import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    DEFAULT_SERVER,
    KEY_VARIABLE,
    SERVER_VARIABLE,
    TOKEN_VARIABLE,
)
from neurofv.fields import kinds
from neurofv.v1 import method_pb2 as method


def names(message: Message) -> str:
    """Return the kinds or, if it has none, the fields of a message, for a help text."""
    of_kind = "kind" in message.DESCRIPTOR.oneofs_by_name
    return ", ".join(kinds(message) if of_kind else message.DESCRIPTOR.fields_by_name)


ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="NAME or NAME/VERSION, as `models` lists.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="jobs/ID, or the ID alone.")]
Server = Annotated[
    str, typer.Option(envvar=SERVER_VARIABLE, metavar="HOST:PORT", help="Address of the server.")
]
Wait = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to try to reach it.")]
Reconnect = Annotated[
    float,
    typer.Option(
        min=0, metavar="SECONDS", help="How long to take up a stream again that has broken; 0 for never."
    ),
]
Deadline = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Give up a call after this time.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=f"File that holds the bearer token; else {TOKEN_VARIABLE} does."),
]
Ca = Annotated[
    str | None,
    typer.Option(
        envvar=CA_VARIABLE, metavar="FILE", help="PEM file of the server's authority, or `system`: use TLS."
    ),
]
Certificate = Annotated[
    str | None,
    typer.Option(envvar=CERTIFICATE_VARIABLE, metavar="FILE", help="PEM file that shows who calls."),
]
Key = Annotated[
    str | None, typer.Option(envvar=KEY_VARIABLE, metavar="FILE", help="PEM file of its private key.")
]
PlaintextToken = Annotated[
    bool,
    typer.Option(
        "--allow-plaintext-token",
        help="Send the token without TLS beyond this machine: something else encrypts.",
    ),
]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.")]
Canvas = Annotated[
    str | None, typer.Option(metavar="MM", help="Edge of the box to optimize: 80, or 80,60,40.")
]
Start = Annotated[
    str | None,
    typer.Option(metavar="NAME[=VALUE]", help=f"What it begins with: {names(method.Start())}."),
]
Picture = Annotated[bool, typer.Option("--picture/--no-picture", help="Draw three views.")]

DEFAULT_WAIT = 5.0
SERVER = DEFAULT_SERVER
