"""Options that several training commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import check_name

Cohort = Annotated[Path, typer.Option(help="BIDS derivative with skull-stripped brains on one grid.")]
Out = Annotated[Path, typer.Option(help="Model repository; the bundle goes to OUT/NAME/1.")]
Name = Annotated[
    str, typer.Option(help="Of the bundle.", show_default="by the choices here", callback=check_name)
]
Description = Annotated[str, typer.Option(help="BIDS entity desc of the scans.")]
Steps = Annotated[
    int,
    typer.Option(min=0, help="Training steps of each network, in all.", show_default="those of the recipe"),
]
Draws = Annotated[int, typer.Option(min=1, help="Held-out images per subject and class.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Robust = Annotated[bool, typer.Option("--robust", help="Train on against small worst-case changes.")]
Shuffled = Annotated[bool, typer.Option("--shuffled", help="A control: labels are dealt out at random.")]
Untrained = Annotated[bool, typer.Option("--untrained", help="A control: no training.")]
