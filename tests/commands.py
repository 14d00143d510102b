"""Runs the training commands in this process."""

from __future__ import annotations

from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from training.__main__ import app


def train(*arguments: str | Path) -> Result:
    """Run `python -m training ...`; the number of threads that it sets is taken back."""
    threads = torch.get_num_threads()
    try:
        return CliRunner().invoke(app, list(map(str, arguments)))
    finally:
        torch.set_num_threads(threads)
