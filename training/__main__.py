"""The commands that make models, and the one that shows what moves them: `python -m training`.

`lesions`, `sex` and `growth` make a model; `exemplars` finds the real images that its units answer to;
`export` writes it for another server.
"""

from __future__ import annotations

import typer

from training.exemplars_command import exemplars
from training.export_command import export
from training.lesions.command import lesions
from training.whole.growth_command import growth
from training.whole.sex import sex

app = typer.Typer(
    help="Train the models that neurofv ships, and find the images that move them.",
    add_completion=False,
    no_args_is_help=True,
)
app.command()(lesions)
app.command()(sex)
app.command()(growth)
app.command()(exemplars)
app.command()(export)


@app.callback()
def main() -> None:
    """Train the models that neurofv ships, and find the images that move them."""


if __name__ == "__main__":
    app()
