from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import ZOO, BundleCorrupt, BundleInvalid, ModelError, read_bundle
from models.archive import DIGESTS, HANDLER, read_archive
from tests.commands import train
from training.torchserve_archive import ArchiveNotWritten, write_archive

# The smallest of the zoo.
BUNDLE = ZOO / "growth" / "1"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same bundle twice, exported at once into two stores."""
    bundle = read_bundle(BUNDLE)
    stores = [tmp_path_factory.mktemp("store, with a comma") / "new" for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda store: write_archive(bundle, store), stores))


@pytest.fixture
def unpacked(archives: list[Path], tmp_path: Path) -> Path:
    with zipfile.ZipFile(archives[0]) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_the_same_bundle_gives_the_same_bytes(archives: list[Path], tmp_path: Path) -> None:
    exported = train("export", "growth", "--torchserve", tmp_path)
    assert exported.exit_code == 0, exported.output
    again = tmp_path / "growth.mar"
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (*archives, again)}
    assert len(digests) == 1
    assert digests.pop() in exported.output
    assert list(tmp_path.iterdir()) == [again]


def test_nothing_in_the_archive_depends_on_the_run(archives: list[Path]) -> None:
    with zipfile.ZipFile(archives[0]) as archive:
        entries = archive.infolist()
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert manifest["model"] == {"modelName": "growth", "modelVersion": "1", "handler": HANDLER}


def test_an_unpacked_archive_is_the_bundle(unpacked: Path) -> None:
    bundle = read_archive(unpacked)
    assert bundle.digest == read_bundle(BUNDLE).digest
    # Python may have compiled the handler.
    (unpacked / "__pycache__").mkdir()
    assert read_archive(unpacked).label == "growth/1"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _rewrite(folder: Path, **changes: object) -> None:
    known = json.loads((folder / DIGESTS).read_text())
    (folder / DIGESTS).write_text(json.dumps(known | changes))


DAMAGE: dict[str, tuple[Callable[[Path], object], type[ModelError], str]] = {
    "weights": (lambda folder: _flip(folder / "weights.safetensors"), BundleCorrupt, "weights.safetensors"),
    "handler": (lambda folder: (folder / HANDLER).write_text("import os"), BundleCorrupt, HANDLER),
    "superfluous": (lambda folder: (folder / "more.py").write_text(""), BundleCorrupt, "more.py"),
    "missing": (lambda folder: (folder / "prior.safetensors").unlink(), BundleCorrupt, "prior.safetensors"),
    "no digests": (lambda folder: (folder / DIGESTS).unlink(), BundleCorrupt, DIGESTS),
    "no JSON": (lambda folder: (folder / DIGESTS).write_text("{"), BundleInvalid, DIGESTS),
    "nothing listed": (lambda folder: _rewrite(folder, files={}), BundleInvalid, "files"),
    "path": (lambda folder: _rewrite(folder, files={"../etc": "0" * 64}), BundleInvalid, "files"),
    "another model": (lambda folder: _rewrite(folder, model="sex"), BundleInvalid, "sex/1"),
    "another digest": (
        lambda folder: _rewrite(folder, bundle_sha256="0" * 64),
        BundleInvalid,
        "000000000000",
    ),
}


@pytest.mark.parametrize("which", DAMAGE)
def test_a_damaged_archive_is_refused(unpacked: Path, which: str) -> None:
    damage, kind, named = DAMAGE[which]
    damage(unpacked)
    with pytest.raises(kind) as caught:
        read_archive(unpacked)
    assert named in str(caught.value)


def test_a_bundle_that_changes_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "growth" / "1"
    shutil.copytree(BUNDLE, folder)
    bundle = read_bundle(folder)
    (folder / "MODEL_CARD.md").write_text("another")
    with pytest.raises(ArchiveNotWritten, match=r"growth/1: MODEL_CARD\.md has changed"):
        write_archive(bundle, tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_an_archiver_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken" / "model_archiver"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise SystemExit('out of order')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(ArchiveNotWritten, match="ended with 1: out of order"):
        write_archive(read_bundle(BUNDLE), tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_the_command_says_what_is_wrong(archives: list[Path], tmp_path: Path) -> None:
    for name in ("nobody", "growth/newest"):
        unknown = train("export", name, "--torchserve", tmp_path)
        assert unknown.exit_code == 2
        assert "available: growth" in unknown.output
    assert train("export", BUNDLE.parent, "--torchserve", tmp_path).exit_code == 2
    again = train("export", BUNDLE, "--torchserve", archives[0].parent)
    assert again.exit_code == 2
    assert "exists already" in again.output
