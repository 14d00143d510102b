from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from neurofv.cli.options import read_edges, read_settings, split_model


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (None, None),
        ([], None),
        (["l1"], {"l1": {}}),
        (["total_variation=0.005"], {"total_variation": 0.005}),
        (["a.x=1", "a.y=2.5", "b=3"], {"a": {"x": 1, "y": 2.5}, "b": 3}),
        (["noise=nan"], {"noise": pytest.approx(float("nan"), nan_ok=True)}),
    ],
)
def test_settings(texts: list[str] | None, settings: dict[str, object] | None) -> None:
    assert read_settings(texts, "--x") == settings


@pytest.mark.parametrize("texts", [["a=b"], ["a=1", "a=2"], ["a=1", "a.x=2"], ["a.x"], ["a="]])
def test_unclear_settings_are_refused(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="--x"):
        read_settings(texts, "--x")


def test_models_and_edges() -> None:
    assert split_model("lesion-shapes") == ("lesion-shapes", 0)
    assert split_model("lesion-shapes/12") == ("lesion-shapes", 12)
    for wrong in ("a/", "a/b", "a/0", "a/-1"):
        with pytest.raises(typer.BadParameter, match="NAME/VERSION"):
            split_model(wrong)
    assert read_edges(None) is None
    assert read_edges("80") == 80
    assert read_edges("80,60.5,40") == [80, 60.5, 40]
    with pytest.raises(typer.BadParameter, match="mm"):
        read_edges("wide")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_command_says_what_to_install(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None\nfrom neurofv.cli import main\nmain()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"needs {missing}" in run.stderr
    assert "neurofv[cli]" in run.stderr


def test_the_library_needs_no_extra() -> None:
    blocked = ("typer", "rich", "matplotlib", "nilearn", "torch", "scipy")
    script = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
    script += "import neurofv; neurofv.Client().close()"
    subprocess.run([sys.executable, "-c", script], check=True)
