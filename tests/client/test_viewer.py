from __future__ import annotations

import base64
import hashlib
import io
import logging
import tarfile
from pathlib import Path

import pytest

from neurofv import InvalidRequest, viewer
from neurofv.viewer import kept_script, viewer_script

SCRIPT = "globalThis.niivue = {};"


def a_package(script: str = SCRIPT, name: str = "package/dist/niivue.umd.js") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        facts = tarfile.TarInfo(name)
        facts.size = len(script)
        archive.addfile(facts, io.BytesIO(script.encode()))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no npm."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("NEUROFV_VIEWER", raising=False)
    return tmp_path / "cache" / "neurofv" / f"niivue-{viewer.VERSION}.tgz"


def put_npm(folder: Path, package: bytes, code: int = 0) -> Path:
    """A stand-in for npm, which writes a package and notes its arguments."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "package.tgz").write_bytes(package)
    npm = folder / "bin" / "npm"
    copy = f"/bin/cp {folder}/package.tgz niivue.tgz\n"
    npm.write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\n{copy if code == 0 else ""}exit {code}\n')
    npm.chmod(0o755)
    return folder / "calls"


def expect(package: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = base64.b64encode(hashlib.sha512(package).digest()).decode()
    monkeypatch.setattr(viewer, "INTEGRITY", f"sha512-{digest}")


def test_npm_is_asked_once_for_the_version_that_was_tested(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = a_package()
    expect(package, monkeypatch)
    calls = put_npm(tmp_path, package)
    assert kept_script("") is None
    assert not calls.exists()
    assert [viewer_script(), viewer_script(), kept_script("")] == [SCRIPT, SCRIPT, SCRIPT]
    asked = calls.read_text().splitlines()
    assert len(asked) == 1
    assert f"pack @niivue/niivue@{viewer.VERSION} --ignore-scripts" in asked[0]
    # What was damaged since is asked for anew.
    cache.write_bytes(package[:-1])
    assert kept_script("") is None
    assert viewer_script() == SCRIPT
    assert len(calls.read_text().splitlines()) == 2
    assert cache.read_bytes() == package


def test_another_package_than_the_tested_one_is_not_taken(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_npm(tmp_path, a_package("alert(1)"))
    with caplog.at_level(logging.WARNING):
        assert viewer_script() is None
    assert "its SHA-512 differs" in caplog.text
    assert not cache.exists()


@pytest.mark.parametrize("there", [False, True])
def test_without_npm_or_its_answer_there_is_no_viewer(
    there: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if there:
        put_npm(tmp_path, b"", code=1)
    with caplog.at_level(logging.WARNING):
        assert viewer_script() is None
    assert ("exit code 1" if there else "npm is not installed") in caplog.text
    assert "NEUROFV_VIEWER" in caplog.text


def test_the_setting_names_a_script_or_a_package_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.js").write_text(SCRIPT)
    (tmp_path / "a.tgz").write_bytes(a_package())
    for name, script in (("a.js", SCRIPT), ("a.tgz", SCRIPT)):
        monkeypatch.setenv("NEUROFV_VIEWER", str(tmp_path / name))
        assert viewer_script() == script
        assert kept_script(str(tmp_path / name)) == script
    monkeypatch.setenv("NEUROFV_VIEWER", "None")
    assert viewer_script() is None
    assert kept_script("none") is None


@pytest.mark.parametrize("content", [None, b"no package", a_package(name="package/README.md")])
def test_a_named_file_that_is_no_viewer_is_an_error(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tgz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("NEUROFV_VIEWER", str(path))
    with pytest.raises(InvalidRequest, match="NEUROFV_VIEWER"):
        viewer_script()
    with pytest.raises(InvalidRequest, match="NEUROFV_VIEWER"):
        kept_script(str(path))
