"""Damaged files, a full disk, a locked database: the soak's proofs at a small size."""

from pathlib import Path

from benchmarks.reliability import corrupt, storage_faults
from service.storage.files import Files


def test_damage_is_noticed() -> None:
    found = corrupt.measure(("flip",), ("weights.safetensors", "bundle.json"))
    assert found["wrong_volumes"] == found["not_noticed"] == 0
    outcomes = found["outcomes"]
    assert outcomes["went on from an earlier checkpoint"] == 1
    assert outcomes["went on from the start"] == 1
    assert outcomes["DATA_LOSS ARTIFACT_CORRUPT"] == 4


def test_a_full_disk_loses_nothing() -> None:
    assert storage_faults.disk_full(2.0)["faults"] == []


def test_a_locked_database_loses_nothing() -> None:
    assert storage_faults.locked(3.0)["faults"] == []


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(tmp_path: Path) -> None:
    files = Files(tmp_path)
    whole = files.volume("a" * 32, 7)
    whole.parent.mkdir()
    whole.write_bytes(b"whole")
    partial = whole.with_name("8.nii.gz.part")
    partial.write_bytes(b"half")
    Files(tmp_path)
    assert whole.exists()
    assert not partial.exists()
