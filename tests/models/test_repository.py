import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from models import (
    ZOO,
    Bundle,
    BundleCorrupt,
    Entry,
    Manifest,
    ModelError,
    ModelNotFound,
    Repository,
    read_bundle,
)

Writer = Callable[..., Bundle]


@pytest.fixture
def three(root: Path, write: Writer, manifest: Manifest) -> Path:
    """Versions 1, 2 and 10 of ``tiny``; 10 lies before 2 in the order of letters."""
    for version in (2, 10):
        write(root, manifest=manifest.model_copy(update={"version": version}), onnx=False)
    return root


def spoil(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as stream:
        stream.write(b"x")


def test_the_newest_version_by_default(three: Path) -> None:
    repository = Repository(three)
    assert repository.get("tiny").manifest.version == 10
    assert repository.get("tiny", 2).manifest.version == 2
    assert repository.entries() == [Entry("tiny", version, True, "") for version in (1, 2, 10)]


def test_the_newest_ready_version_if_the_newest_is_corrupt(three: Path) -> None:
    spoil(three / "tiny" / "10")
    repository = Repository(three)
    assert repository.get("tiny").manifest.version == 2
    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors"):
        repository.get("tiny", 10)
    entry = repository.entries()[-1]
    assert (entry.version, entry.ready) == (10, False)
    assert "weights.safetensors" in entry.reason
    assert str(three) not in entry.reason


def test_no_ready_version_says_why(root: Path) -> None:
    spoil(root / "tiny" / "1")
    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors"):
        Repository(root).get("tiny")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("huge", None),
        ("tiny", 3),
        ("tiny", 0),
        ("tiny", -1),
        ("", None),
        ("..", None),
        ("../zoo/tiny", None),
        ("tiny/1", None),
        ("TINY", None),
        ("tiny\n", None),
        ("x" * 10_000, None),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(three: Path, name: str, version: int | None) -> None:
    spoil(three / "tiny" / "2")
    with pytest.raises(ModelNotFound) as caught:
        Repository(three).get(name, version)
    assert caught.value.available == ("tiny/1", "tiny/10")
    assert "tiny/1, tiny/10" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_bundles_are_kept_until_their_files_change(root: Path) -> None:
    repository = Repository(root)
    bundle = repository.get("tiny")
    assert repository.get("tiny", 1) is bundle
    spoil(bundle.path)
    with pytest.raises(BundleCorrupt):
        repository.get("tiny")
    assert not repository.entries()[0].ready


def test_a_bundle_that_comes_or_heals_is_seen(root: Path, master: Bundle, tmp_path: Path) -> None:
    spoil(root / "tiny" / "1")
    repository = Repository(root)
    assert not repository.entries()[0].ready
    shutil.rmtree(root / "tiny" / "1")
    assert repository.entries() == []
    shutil.copytree(master.path, root / "tiny" / "1")
    assert repository.get("tiny").digest == master.digest


def test_other_files_and_folders_are_ignored(root: Path) -> None:
    for folder in (".git", "Tiny", "tiny/.1-abc", "tiny/01", "tiny/0", "tiny/one", "tiny/1.5", "empty"):
        (root / folder).mkdir()
    (root / "README.md").write_text("hello")
    (root / "tiny" / "3").write_text("no folder")
    assert [(entry.name, entry.version) for entry in Repository(root).entries()] == [("tiny", 1)]


def test_an_empty_version_is_not_ready(root: Path) -> None:
    (root / "tiny" / "2").mkdir()
    entry = Repository(root).entries()[1]
    assert not entry.ready
    assert "bundle.json" in entry.reason


def test_a_link_that_leaves_the_root_is_refused(root: Path, master: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(master.path, outside / "tiny" / "1")
    shutil.rmtree(root / "tiny")
    (root / "tiny").symlink_to(outside / "tiny")
    (root / "other").mkdir()
    (root / "other" / "1").symlink_to(outside / "tiny" / "1")
    repository = Repository(root)
    for entry in repository.entries():
        assert not entry.ready
        assert "leaves the repository" in entry.reason
        assert str(outside) not in entry.reason
    assert len(repository.entries()) == 2
    with pytest.raises(ModelError, match="leaves the repository"):
        repository.get("tiny", 1)


def test_a_link_as_root_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    assert Repository(tmp_path / "current").get("tiny").manifest.name == "tiny"


def test_no_directory_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'missing' is not a directory"):
        Repository(tmp_path / "missing")


def test_many_threads_get_one_bundle(root: Path) -> None:
    repository, gate = Repository(root), threading.Barrier(8)

    def get(_: int) -> Bundle:
        gate.wait()
        return repository.get("tiny")

    with ThreadPoolExecutor(8) as pool:
        assert len({id(bundle) for bundle in pool.map(get, range(8))}) == 1


def evil(root: Path, graph: str) -> Path:
    """Put a bundle with a given graph beside the small one; its digests are right."""
    folder = root / "evil" / "1"
    shutil.copytree(root / "tiny" / "1", folder)
    (folder / "graph.json").write_text(graph)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest |= {"name": "evil", "architecture": {"name": "onnx"}}
    manifest["files"]["graph.json"] = hashlib.sha256(graph.encode()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_a_graph_that_is_nested_without_end_leaves_the_other_models_served(root: Path) -> None:
    evil(root, "[" * 100_000 + "]" * 100_000)
    repository = Repository(root)
    first, second = repository.entries()
    assert (first.name, first.ready) == ("evil", False)
    assert "graph.json: is nested too deeply" in first.reason
    assert second == Entry("tiny", 1, True, "")
    assert repository.get("tiny").manifest.name == "tiny"


def test_a_graph_that_asks_for_gigabytes_makes_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"shape": [3], "dtype": "int64", "values": [1000, 1000, 2000]}
    node = {"op": "ConstantOfShape", "name": "bomb", "opset": 17, "inputs": [sizes]}
    graph = {"inputs": ["x"], "outputs": ["z"], "nodes": [node | {"outputs": ["z"], "layers": ["z"]}]}
    evil(root, json.dumps(graph))

    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise AssertionError("it was made")

    monkeypatch.setattr(torch, "full", full)
    first, second = Repository(root).entries()
    assert not first.ready
    assert "graph.json" in first.reason
    assert "'bomb' (ConstantOfShape) makes 2000000000 numbers" in first.reason
    assert second.ready


def test_whatever_goes_wrong_in_one_bundle_leaves_the_other_models_served(
    root: Path, master: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(master.path, root / "other" / "1")

    def fail(folder: Path) -> Bundle:
        if folder.parent.name == "other":
            raise MemoryError(f"at {folder}")
        return read_bundle(folder)

    monkeypatch.setattr("models.repository.read_bundle", fail)
    other, tiny = Repository(root).entries()
    assert (other.ready, tiny.ready) == (False, True)
    assert "cannot be verified (MemoryError)" in other.reason
    assert str(root) not in other.reason


def test_the_zoo_lies_in_the_package() -> None:
    assert ZOO.name == "zoo"
    assert (ZOO.parent / "repository.py").is_file()
