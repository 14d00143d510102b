"""The commands that make the shipped models: `python -m training lesions --cohort DIR --out DIR`."""

from __future__ import annotations

import typer

from training.lesions.command import lesions

app = typer.Typer(help="Train the models that neurofv ships.", add_completion=False, no_args_is_help=True)
app.command()(lesions)


@app.callback()
def main() -> None:
    """Train the models that neurofv ships."""


if __name__ == "__main__":
    app()
