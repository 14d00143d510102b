from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.brains import write_scan, write_tables
from training.cohort import Cohort, find_scan, read_cohort, read_participants

BLOCK = (slice(20, 72), slice(26, 82), slice(22, 70))
"""A part of the grid with room for lesions, so that whole volumes are quick."""


@pytest.fixture(scope="session")
def block_dir(cohort_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of the cohort's brains, cut to a block."""
    root = tmp_path_factory.mktemp("block")
    names = list(read_participants(cohort_dir)[:8])
    for name in names:
        image = nibabel.load(find_scan(cohort_dir, name, "affinebrain")).slicer[BLOCK]
        write_scan(root, name, np.asarray(image.dataobj).astype(np.uint8), image.affine)
    write_tables(root, names)
    return root


@pytest.fixture(scope="session")
def block(block_dir: Path) -> Cohort:
    return read_cohort(block_dir)
