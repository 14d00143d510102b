"""The commands that make models: `python -m training lesions|sex|growth --cohort DIR --out DIR`."""

from __future__ import annotations

import typer

from training.lesions.command import lesions
from training.whole.growth_command import growth
from training.whole.sex import sex

app = typer.Typer(help="Train the models that neurofv ships.", add_completion=False, no_args_is_help=True)
app.command()(lesions)
app.command()(sex)
app.command()(growth)


@app.callback()
def main() -> None:
    """Train the models that neurofv ships."""


if __name__ == "__main__":
    app()
