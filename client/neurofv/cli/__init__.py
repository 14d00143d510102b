"""The `neurofv` command."""

import sys


def main() -> None:
    """Run the command; needs the extra `cli`."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"neurofv: the command needs {error.name}; install it with: pip install 'neurofv[cli]'")
    from neurofv.cli.app import app

    app()
