"""Options that commands share, and how their texts are read."""

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.message import Message

from neurofv.connection import DEFAULT_SERVER, SERVER_VARIABLE
from neurofv.requests import kinds
from neurofv.v1 import method_pb2 as method

Triple = tuple[float, float, float]


def _names(message: Message) -> str:
    return ", ".join(kinds(message))


ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="NAME or NAME/VERSION, as `models` lists.")]
Server = Annotated[
    str, typer.Option(envvar=SERVER_VARIABLE, metavar="HOST:PORT", help="Address of the server.")
]
Wait = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to try to reach it.")]
Deadline = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Give up a call after this time.")
]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.")]
Canvas = Annotated[
    str | None, typer.Option(metavar="MM", help="Edge of the box to optimize: 80, or 80,60,40.")
]
Start = Annotated[
    str | None,
    typer.Option(metavar="NAME[=VALUE]", help=f"What it begins with: {_names(method.Start())}."),
]
Parameterization = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[=VALUE]", help=f"How the volume is held: {_names(method.Parameterization())}."
    ),
]
Regularizers = Annotated[
    list[str] | None,
    typer.Option(
        "--regularizer",
        metavar="NAME[=VALUE]",
        help=f"Replaces the default ones; may be repeated: {_names(method.Regularizer())}.",
    ),
]
Transforms = Annotated[
    list[str] | None,
    typer.Option(
        "--transform",
        metavar="NAME=VALUE",
        help=f"May be repeated: {', '.join(method.Transforms.DESCRIPTOR.fields_by_name)}.",
    ),
]

ClassName = Annotated[str | None, typer.Option("--class", help="The class whose logit to drive.")]
Contrast = Annotated[bool, typer.Option("--contrast", help="Drive the class against the other classes.")]
LayerName = Annotated[str | None, typer.Option(help="The layer to look into.")]
Channel = Annotated[int | None, typer.Option(help="Its channel, from 0.")]
VoxelIndices = Annotated[tuple[int, int, int] | None, typer.Option(help="One position: voxel indices.")]
Point = Annotated[Triple | None, typer.Option(help="One position: mm, RAS+.")]
Center = Annotated[Triple | None, typer.Option(help="Middle of the box: mm, RAS+.")]
NoRegularizers = Annotated[bool, typer.Option("--no-regularizers", help="Not even the default ones.")]
Optimizer = Annotated[
    list[str] | None,
    typer.Option(
        "--optimizer",
        metavar="NAME[=VALUE]",
        help=f"How it is driven, such as adam=0.05 or sgd.momentum=0.8: {_names(method.Optimizer())}.",
    ),
]
Schedule = Annotated[str | None, typer.Option(help="How the step size changes: constant, cosine.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="FILE.nii.gz or a directory; files that exist are replaced. [default: the server's name, here]",
    ),
]
Snapshots = Annotated[Path | None, typer.Option(metavar="DIR", help="Also keep volumes on the way, here.")]
Every = Annotated[int | None, typer.Option(min=1, help="Steps between snapshots.")]
Picture = Annotated[bool, typer.Option("--picture/--no-picture", help="Draw three views.")]

DEFAULT_WAIT = 5.0
SERVER = DEFAULT_SERVER


def split_model(text: str) -> tuple[str, int]:
    """Read NAME or NAME/VERSION; version 0 means the newest."""
    name, slash, version = text.partition("/")
    if slash and not (version.isdigit() and int(version) > 0):
        raise typer.BadParameter(f"{text!r}: write NAME or NAME/VERSION, such as lesion-shapes/1")
    return name, int(version or 0)


def read_edges(text: str | None) -> float | list[float] | None:
    """Read one edge or three, separated by commas."""
    if text is None:
        return None
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write mm, such as --canvas 80 or --canvas 80,60,40") from None
    return edges[0] if len(edges) == 1 else edges


def read_settings(texts: list[str] | None, option: str) -> dict[str, Any] | None:
    """Read settings by name.

    Parameters
    ----------
    texts : list of str or None
        Each NAME, NAME=VALUE or NAME.FIELD=VALUE.
    option : str
        For the error.

    Returns
    -------
    dict or None
        As `neurofv.requests.fill` takes it; None if there was nothing to read.

    Raises
    ------
    typer.BadParameter
        A text is none of these.
    """
    if not texts:
        return None
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        name, dot, field = path.strip().partition(".")
        number: Any = _number(value, f"{option} {text}") if equals else {}
        if dot and equals and isinstance(settings.setdefault(name, {}), dict):
            settings[name][field] = number
        elif dot or name in settings:
            raise typer.BadParameter(f"{option} {text}: write NAME=VALUE once, or NAME.FIELD=VALUE")
        else:
            settings[name] = number
    return settings


def read_setting(text: str | None, option: str) -> dict[str, Any] | None:
    """Read one setting by name; see `read_settings`."""
    return read_settings([text] if text else None, option)


def _number(text: str, option: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise typer.BadParameter(f"{option}: {text!r} is not a number")
