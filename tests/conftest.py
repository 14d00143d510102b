from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# As in the Makefile, for whoever runs pytest alone: torch reads it when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.brains import make_cohort
from tests.server import RunningServer, make_repository

# What starts processes and waits for them; the other files only compute, and are short.
_FIRST = ("reliability", "service", "client", "training")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the short files for the end: files go to whichever process is free, and all end at one time."""

    def turn(item: pytest.Item) -> int:
        folder = item.nodeid.partition("/")[2].partition("/")[0]
        return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def cohort_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort that tests read: NEUROFV_COHORT, the real one beside the checkout, or invented brains."""
    named = os.environ.get("NEUROFV_COHORT")
    if named:
        assert (Path(named) / "participants.tsv").is_file(), (
            f"NEUROFV_COHORT={named} holds no participants.tsv"
        )
        return Path(named)
    beside = Path(__file__).parents[2] / "shared" / "cohort"
    if (beside / "participants.tsv").is_file():
        return beside
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real server with the shipped bundles and a damaged one."""
    running = RunningServer(make_repository(tmp_path_factory.mktemp("repository") / "zoo"))
    yield running
    assert running.stop() == 0
