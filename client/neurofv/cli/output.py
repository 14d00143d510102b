"""Where a result goes: files, a picture, a few lines."""

from collections.abc import Callable
from pathlib import Path

from rich.markup import escape

from neurofv.cli.console import out, warn
from neurofv.results import Visualization, beside, describe, unit_name


def save(result: Visualization, path: Path, draw: bool) -> list[Path]:
    """Write a result's volume, sidecar and, if asked for, picture; return what was written."""
    nifti, sidecar = result.save(path)
    files = [nifti, sidecar]
    if draw:
        image = beside(nifti, ".png")
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
    for term, figures in zip(result.request.objective.terms, result.evaluation.terms, strict=True):
        out.print(f"[bold]{escape(unit_name(term))}[/]: {escape(describe(term, figures))}", soft_wrap=True)
    for file in files:
        out.print(f"  {file}", markup=False, soft_wrap=True)


def _picture(result: Visualization, path: Path) -> None:
    # Imported late: nilearn takes seconds, and may be absent.
    from neurofv.picture import picture

    picture(result, path)
