"""sbom.py OUT [PYTHON]: write what the service runs on as a CycloneDX bill of materials.

Without PYTHON the pinned requirements are installed into an environment of their own, as in the image; with
it, that interpreter's environment is described. The same environment gives the same bytes: no time, no serial
number.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(out: str, python: str | None = None) -> None:
    """Write the bill; what does not fit CycloneDX's schema ends this with its validator's words."""
    with tempfile.TemporaryDirectory() as scratch:
        described = Path(python) if python else install(Path(scratch))
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        _run(
            *("cyclonedx_py", "environment", "--pyproject", "pyproject.toml", "--mc-type", "application"),
            *("--output-reproducible", "--validate", "--spec-version", "1.6", "--output-format", "JSON"),
            *("--output-file", str(Path(out).absolute()), str(described)),
        )


def install(folder: Path) -> Path:
    """Install the pinned requirements into a folder, without pip itself, and return its interpreter."""
    # Symlinks, so that the environment's own packages are told from the machine's.
    venv.create(folder / "environment", with_pip=False, symlinks=True)
    python = folder / "environment" / "bin" / "python"
    wanted = folder / "requirements.txt"
    script = ROOT / "deploy" / "image" / "requirements.py"
    done = subprocess.run([sys.executable, script], cwd=ROOT, check=True, capture_output=True)
    wanted.write_bytes(done.stdout)
    quietly = ("--quiet", "--disable-pip-version-check")
    _run("pip", "--python", str(python), "install", *quietly, "-c", "constraints.txt", "-r", str(wanted))
    return python


def _run(*module: str) -> None:
    subprocess.run([sys.executable, "-m", *module], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
