"""The commands about bundles: `python -m models`."""

from __future__ import annotations

import typer

from models.importing.command import import_model

app = typer.Typer(
    help="Make bundles of networks that were trained elsewhere.", add_completion=False, no_args_is_help=True
)
app.command("import")(import_model)


@app.callback()
def main() -> None:
    """Make bundles of networks that were trained elsewhere."""


if __name__ == "__main__":
    app()
