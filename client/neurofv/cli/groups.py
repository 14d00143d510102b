"""The options of `neurofv visualize`, in groups, and how a command takes them."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from neurofv.bids import check_dataset
from neurofv.cli import options
from neurofv.cli.options import names
from neurofv.cli.reading import (
    read_channels,
    read_direction,
    read_edges,
    read_files,
    read_names,
    read_setting,
    read_settings,
)
from neurofv.client import Client
from neurofv.connection import tls_credentials
from neurofv.errors import InvalidRequest
from neurofv.events import Event
from neurofv.files import check_writable
from neurofv.results import is_file
from neurofv.retries import DEFAULT_RECONNECT_SECONDS
from neurofv.v1 import method_pb2 as method
from neurofv.volumes import Volume

Triple = tuple[float, float, float]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options, each a dataclass of this module.

    Typer reads options from a function's parameters; a parameter whose type is a
    dataclass is replaced by that one's fields. Its docstring heads them in the help.
    """
    hints = get_type_hints(command)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    own = [each for each in inspect.signature(command).parameters.values() if each.name not in groups]
    parameters = own + [parameter for kind in groups.values() for parameter in _parameters(kind)]

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**given, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    """Return a group's fields as the parameters of a function."""
    panel = (group.__doc__ or "").partition(".")[0]
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        annotation = copy.deepcopy(hints[field.name])
        annotation.__metadata__[0].rich_help_panel = panel
        kind = inspect.Parameter.KEYWORD_ONLY
        found.append(inspect.Parameter(field.name, kind, default=field.default, annotation=annotation))
    return found


@dataclass(frozen=True)
class Unit:
    """What is driven."""

    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME[,NAME]", help="The class whose logit to drive, or several."),
    ] = None
    contrast: Annotated[bool, typer.Option("--contrast", help="Drive it against the other classes.")] = False
    layer: Annotated[str | None, typer.Option(help="The layer to look into.")] = None
    channel: Annotated[
        str | None,
        typer.Option(metavar="NUMBER[,NUMBER]", help="Its channel, from 0, or several: 1,5,7 or 0-7."),
    ] = None
    voxel: Annotated[tuple[int, int, int] | None, typer.Option(help="One position: voxel indices.")] = None
    point: Annotated[Triple | None, typer.Option(help="One position: mm, RAS+.")] = None
    whole_layer: Annotated[bool, typer.Option("--whole-layer", help="All of its channels.")] = False
    direction: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS|FILE", help="A direction among its channels: 1,0,-0.5, or a file."),
    ] = None
    measure: Annotated[str | None, typer.Option(help="How to compare with it: dot, cosine.")] = None
    compare: Annotated[
        str | None,
        typer.Option(help="What to make of the subject's activations in it: inversion, caricature."),
    ] = None
    minimize: Annotated[bool, typer.Option("--minimize", help="Silence what is named.")] = False
    behind_nonlinearities: Annotated[
        bool, typer.Option("--behind-nonlinearities", help="Read a non-linearity's units behind it.")
    ] = False

    def choices(self) -> dict[str, Any]:
        """Return these as `neurofv.build_request` takes them."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own["class_name"] = read_names(self.class_name)
        own["channel"] = read_channels(self.channel)
        own["direction"] = read_direction(self.direction)
        own["position_mm"] = own.pop("point")
        return own


@dataclass(frozen=True)
class Method:
    """How it is driven."""

    steps: options.Steps = None
    seed: options.Seed = None
    samples: Annotated[int | None, typer.Option(help="Volumes of each unit, from consecutive seeds.")] = None
    canvas: options.Canvas = None
    center: Annotated[Triple | None, typer.Option(help="Middle of the box: mm, RAS+.")] = None
    start: options.Start = None
    subject: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A person's NIfTI or .mgz, for --start subject or --compare."),
    ] = None
    parameterization: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help=f"How the volume is held, such as patch.size_mm=24: {names(method.Parameterization())}.",
        ),
    ] = None
    regularizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help=f"Replaces the default ones; may be repeated: {names(method.Regularizer())}.",
        ),
    ] = None
    no_regularizers: Annotated[bool, typer.Option("--no-regularizers", help="Not even the default ones.")] = (
        False
    )
    transform: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help=f"May be repeated: {names(method.Transforms())}."),
    ] = None
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help=f"The steps, such as adam=0.05 or sgd.momentum=0.8: {names(method.Optimizer())}.",
        ),
    ] = None
    schedule: Annotated[str | None, typer.Option(help="How the step size changes: constant, cosine.")] = None
    precision: Annotated[
        str | None, typer.Option(help="The network's numbers: float32, bfloat16, on a GPU also float16.")
    ] = None
    control: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=SEED]", help=f"Without what the model has learned: {names(method.Control())}."
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help=f"When to end early; may be repeated: {names(method.Stopping())}."
        ),
    ] = None

    def choices(self) -> dict[str, Any]:
        """Return these as `neurofv.build_request` takes them."""
        plain = ("steps", "seed", "samples", "subject", "schedule", "precision")
        return {
            **{name: getattr(self, name) for name in plain},
            "canvas_mm": read_edges(self.canvas),
            "center_mm": self.center,
            "start": read_setting(self.start, method.Start(), "--start"),
            "parameterization": read_settings(
                self.parameterization, method.Parameterization(), "--parameterization"
            ),
            "control": read_setting(self.control, method.Control(), "--control"),
            "regularizers": self._regularizers(),
            "transforms": read_settings(self.transform, method.Transforms(), "--transform"),
            "optimizer": read_settings(self.optimizer, method.Optimizer(), "--optimizer"),
            "stopping": read_settings(self.stop, method.Stopping(), "--stop"),
        }

    def _regularizers(self) -> dict[str, Any] | None:
        if self.regularizer and self.no_regularizers:
            raise InvalidRequest("no_regularizers", True, "leave it out, or leave out --regularizer")
        chosen = read_settings(self.regularizer, method.Regularizer(), "--regularizer")
        return {} if self.no_regularizers else chosen


@dataclass(frozen=True)
class Comparison:
    """What it is compared with."""

    transfer: Annotated[
        str | None,
        typer.Option(metavar="NAME[/VERSION]", help="A second model: does it see the same class?"),
    ] = None
    real: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=FILE",
            help="A real image of a class; give two of the one that is driven and one of another.",
        ),
    ] = None

    def choices(self) -> dict[str, Any]:
        """Return these as `neurofv.build_request` takes them."""
        return {"transfer": self.transfer, "real_images": read_files(self.real, "--real")}


@dataclass(frozen=True)
class Saved:
    """What is written."""

    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            "--out",
            metavar="PATH",
            help="FILE.nii.gz, or a directory for the server's names. Older files are replaced.",
        ),
    ] = "."
    snapshots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also keep volumes on the way, here.")
    ] = None
    picture: options.Picture = True
    bids: Annotated[
        bool, typer.Option("--bids", help="Make the directory a derivative data set of BIDS.")
    ] = False

    def check(self, volumes: int) -> None:
        """Make sure that the files can be written, which else would be noticed after minutes of work."""
        output = Path(self.output)
        check_writable(output.parent if is_file(self.output, volumes, self.bids) else output)
        if self.bids:
            check_dataset(output)
        if self.snapshots:
            check_writable(self.snapshots)

    def rights(self, client: Client, model: str, version: int) -> str:
        """Return the license that a data set's description is to name."""
        return client.model(model, version).license if self.bids else ""

    def keep(self, event: Event) -> None:
        """Write an event's volume if it is a snapshot."""
        if self.snapshots and isinstance(event, Volume) and event.kind == "intermediate":
            event.save(self.snapshots / event.file_name)


@dataclass(frozen=True)
class Files(Saved):
    """What is written."""

    every: Annotated[int | None, typer.Option(min=1, help="Steps between snapshots.")] = None

    def choices(self) -> dict[str, Any]:
        """Return these as `neurofv.build_request` takes them: no snapshots without a directory."""
        if self.every and not self.snapshots:
            raise InvalidRequest("snapshots", None, "name the directory for what --every asks for")
        return {"snapshot_every": self.every if self.snapshots else 0}


@dataclass(frozen=True)
class Connection:
    """The server."""

    server: options.Server = options.SERVER
    wait: options.Wait = options.DEFAULT_WAIT
    deadline: options.Deadline = None
    reconnect: options.Reconnect = DEFAULT_RECONNECT_SECONDS
    token_file: options.TokenFile = None
    ca: options.Ca = None
    certificate: options.Certificate = None
    key: options.Key = None
    allow_plaintext_token: options.PlaintextToken = False

    @contextmanager
    def opened(self) -> Iterator[Client]:
        """Connect, and wait until the server can be reached.

        Raises
        ------
        InvalidRequest
            The options do not go together.
        OSError
            A file cannot be read.
        NeurofvError
            The server cannot be reached.
        """
        token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else None
        if self.token_file and not token:
            raise InvalidRequest("token_file", str(self.token_file), "name a file that holds the token")
        with Client(
            self.server,
            deadline_seconds=self.deadline,
            reconnect_seconds=self.reconnect,
            token=token,
            credentials=tls_credentials(self.ca, self.certificate, self.key),
            allow_plaintext_token=self.allow_plaintext_token,
        ) as client:
            client.wait_until_ready(self.wait)
            yield client
