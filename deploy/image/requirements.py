"""requirements.py [EXTRA]: print what pyproject.toml, or one of its extras, asks for."""

import sys
import tomllib
from pathlib import Path


def main(extra: str | None = None) -> None:
    """Print the requirements; an extra that pyproject.toml does not know ends this with its name."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    if extra is not None and extra not in extras:
        sys.exit(f"pyproject.toml has no extra {extra!r}; it has: {', '.join(extras)}")
    print(*(project["dependencies"] if extra is None else extras[extra]), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
