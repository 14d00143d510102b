"""Exit codes of the command: 1 is kept for a threshold that has failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import neurofv.audit.html
from neurofv.cli.app import app


def test_what_nobody_foresaw_is_an_audit_that_could_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise ValueError(f"no sense in {folder.name}")

    monkeypatch.setattr(neurofv.audit.html, "write_html", fail)
    run = CliRunner().invoke(app, ["audit", "report", str(tmp_path)])
    assert run.exit_code == 2
    assert "Traceback" in run.stderr
    assert f"ValueError: no sense in {tmp_path.name}" in run.stderr


def test_a_plan_of_another_encoding_is_an_audit_that_could_not_run(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_bytes("audit: 1  # größe\n".encode("latin-1"))
    run = CliRunner().invoke(app, ["audit", "run", str(plan), "--server", "127.0.0.1:1"])
    assert run.exit_code == 2
    assert "Traceback" not in run.stderr
