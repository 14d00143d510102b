"""What the audit demo decides itself, with commands that are played."""

from __future__ import annotations

import subprocess
from pathlib import Path

DEMO = Path(__file__).parents[2] / "deploy" / "audit-demo.sh"
COMMANDS = {
    "neurofv-server": """echo '{"event": "serving", "port": 1}' >&2; exec sleep 60""",
    # images.py COHORT OUT
    "python": """mkdir -p "$3" """,
    # audit run PLAN --server TARGET --out FOLDER
    "neurofv": """mkdir -p "$7"; echo '{}' >"$7/run.json" """,
}


def _demo(folder: Path) -> str:
    """Run the demo, and return the plan that it has audited."""
    commands = folder / "venv" / "bin"
    commands.mkdir(parents=True, exist_ok=True)
    for name, does in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{does}\n")
        (commands / name).chmod(0o755)
    arguments = [str(DEMO), str(folder / "venv"), str(folder / "out"), str(folder / "cohort")]
    subprocess.run(arguments, check=True, timeout=30, stdout=subprocess.DEVNULL)
    return (folder / "out" / "lesion-shapes.yaml").read_text()


def test_a_cohort_that_comes_later_changes_no_audit_that_was_begun(tmp_path: Path) -> None:
    first = _demo(tmp_path)
    assert "images:" not in first
    (tmp_path / "cohort").mkdir()
    assert _demo(tmp_path) == first


def test_a_cohort_that_has_gone_leaves_its_images(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    first = _demo(tmp_path)
    assert "images: images" in first
    (tmp_path / "cohort").rmdir()
    assert _demo(tmp_path) == first
