"""Where a result goes: files, a picture, a few lines."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from rich.markup import escape

from neurofv.cli.console import out, warn
from neurofv.results import Visualization, beside
from neurofv.v1 import method_pb2 as method
from neurofv.words import describe, unit_name


def save(
    result: Visualization, path: str | Path, draw: bool, bids: bool = False, rights: str = ""
) -> list[Path]:
    """Write a result's volumes, sidecars, extras and, if asked for, picture; return what was written."""
    files = list(result.save(path, bids, rights))
    if draw:
        several = len(result.items) > 1
        image = files[0].with_name("overview.png") if several else beside(files[0], ".png")
        if drawn(lambda: _picture(result, image)):
            files.append(image)
    return files


def drawn(draw: Callable[[], object]) -> bool:
    """Draw, or say what is missing for it; the other files are kept either way."""
    try:
        draw()
    except ModuleNotFoundError as error:
        warn(f"no picture: {error.name} is not installed; install the extra 'plot', or give --no-picture")
        return False
    return True


def tell(result: Visualization, files: list[Path]) -> None:
    """Print in plain language what came out, and where it lies."""
    if len(result.items) == 1:
        _judge(result)
        for file in files:
            out.print(f"  {file}", markup=False, soft_wrap=True)
        return
    # Each volume is followed by its sidecar.
    volumes = [file for file, following in pairwise(files) if following == beside(file, ".json")]
    for each, volume in zip(result.items, volumes, strict=True):
        out.print(f"{volume.name}: [bold]{escape(each.label)}[/]", soft_wrap=True)
        _judge(each)
    out.print(f"{len(files)} files lie in {files[0].parent}", markup=False, soft_wrap=True)


def _judge(result: Visualization) -> None:
    terms = zip(result.objective.terms, result.evaluation.terms, strict=True)
    for index, (term, figures) in enumerate(terms):
        # In a batch it would be too much to tell what each unit is set against.
        if index == 0 or term.sense != method.SENSE_MINIMIZE or not result.request.batch:
            phrase = escape(describe(term, figures, result.request.HasField("control")))
            out.print(f"[bold]{escape(unit_name(term))}[/]: {phrase}", soft_wrap=True)
    for line in result.verdicts():
        out.print(f"  · {line}", markup=False, soft_wrap=True)


def _picture(result: Visualization, path: Path) -> None:
    # Imported late: nilearn takes seconds, and may be absent.
    from neurofv.picture import contact_sheet, picture

    if len(result.items) > 1:
        contact_sheet(result.items, path)
    else:
        picture(result, path)
