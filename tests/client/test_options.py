from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from neurofv import InvalidRequest
from neurofv.cli import console
from neurofv.cli.console import Display, reporting
from neurofv.cli.groups import grouped
from neurofv.cli.reading import (
    read_channels,
    read_direction,
    read_edges,
    read_files,
    read_names,
    read_settings,
)
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis

LAYER_1_10 = {"layer": "1.10", "weight": 2}


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (None, None),
        ([], None),
        (["l1"], {"l1": {}}),
        (["total_variation=0.005"], {"total_variation": 0.005}),
        (["a.x=1", "a.y=2.5", "b=3"], {"a": {"x": 1, "y": 2.5}, "b": 3}),
        (["noise=nan"], {"noise": pytest.approx(float("nan"), nan_ok=True)}),
        # A layer's name may look like a number.
        (["feature_distance.layer=1.10", "feature_distance.weight=2"], {"feature_distance": LAYER_1_10}),
    ],
)
def test_settings(texts: list[str] | None, settings: dict[str, object] | None) -> None:
    assert read_settings(texts, method.Regularizer(), "--x") == settings


def test_a_switch_is_true_or_false() -> None:
    kinds = method.Parameterization()
    assert read_settings(["patch.real=true", "patch.size_mm=24"], kinds, "--x") == {
        "patch": {"real": True, "size_mm": 24}
    }
    with pytest.raises(typer.BadParameter, match="true or false"):
        read_settings(["patch.real=yes"], kinds, "--x")


@pytest.mark.parametrize(
    "texts", [["a=b"], ["a=1", "a=2"], ["a=1", "a.x=2"], ["a.x"], ["a="], ["l1.weight=b"]]
)
def test_unclear_settings_are_refused(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="--x"):
        read_settings(texts, method.Regularizer(), "--x")


def test_edges() -> None:
    assert read_edges(None) is None
    assert read_edges("80") == 80
    assert read_edges("80,60.5,40") == [80, 60.5, 40]
    with pytest.raises(typer.BadParameter, match="mm"):
        read_edges("wide")


def test_several_units() -> None:
    assert (read_names(None), read_names("cube"), read_names("cube, torus")) == (
        None,
        ["cube"],
        ["cube", "torus"],
    )
    assert read_channels(None) is None
    assert read_channels("5") == [5]
    assert read_channels("1,5,0-2") == [1, 5, 0, 1, 2]
    for wrong in ("", "a", "1,", "-1", "3-", "4-2", "1.5"):
        with pytest.raises(typer.BadParameter, match="--channel"):
            read_channels(wrong)


def test_a_direction_is_a_list_or_a_file(tmp_path: Path) -> None:
    assert read_direction(None) is None
    assert read_direction("-1,0,0.5") == [-1, 0, 0.5]
    (tmp_path / "a.txt").write_text("1, 2\n-3\n")
    assert read_direction(str(tmp_path / "a.txt")) == [1, 2, -3]
    np.save(tmp_path / "a.npy", np.array([[1.0], [2.5]]))
    assert read_direction(str(tmp_path / "a.npy")) == [1, 2.5]
    np.save(tmp_path / "b.npy", np.array([object()]), allow_pickle=True)
    for wrong in ("", "a", "1,nan", str(tmp_path / "none.npy"), str(tmp_path / "b.npy")):
        with pytest.raises(typer.BadParameter, match="--direction"):
            read_direction(wrong)


def test_files_by_class() -> None:
    assert read_files(None, "--real") is None
    files = read_files(["cube=a.nii", "none=b=c.nii", "cube=d.nii"], "--real")
    assert files == {"cube": [Path("a.nii"), Path("d.nii")], "none": [Path("b=c.nii")]}
    for wrong in ("a.nii", "=a.nii", "cube="):
        with pytest.raises(typer.BadParameter, match="--real"):
            read_files([wrong], "--real")


def test_groups_of_options_become_a_commands_own() -> None:
    @dataclass(frozen=True)
    class Size:
        """How large it is."""

        width: Annotated[int, typer.Option(help="Across.")] = 3
        height: Annotated[int | None, typer.Option("--tall", help="Up.")] = None

    seen: list[object] = []

    def command(name: Annotated[str, typer.Argument()], size: Size) -> None:
        seen.append((name, size))

    command.__annotations__ = {"name": Annotated[str, typer.Argument()], "size": Size, "return": None}
    app = typer.Typer()
    app.command()(grouped(command))
    result = CliRunner().invoke(app, ["a", "--tall", "7"])
    assert result.exit_code == 0, result.output
    assert seen == [("a", Size(3, 7))]
    assert "How large it is" in CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, ["a", "--size", "7"]).exit_code == 2


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("class_name", "--class"),
        ("whole_layer", "--whole-layer"),
        ("request.stopping.looks", "--stop looks"),
        ("request.transforms.copies", "--transform copies"),
        ("regularizers.l1.wieght", "--regularizer l1.wieght"),
        ("real_images", "--real"),
        ("model", "MODEL"),
    ],
)
def test_errors_speak_the_words_of_the_options(
    field: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, reporting():
        raise InvalidRequest(field, 3, "do otherwise")
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == f"error: {option} 3: do otherwise\n"


def test_a_batch_shows_one_objective(capsys: pytest.CaptureFixture[str]) -> None:
    batch = [vis.ItemProgress(objective=5.0), vis.ItemProgress(objective=9.0)]
    with Display() as display:
        follow = display.follow("cube")
        follow(vis.Accepted(request=vis.VisualizeRequest(steps=2)))
        follow(vis.Progress(step=1, steps=2, objective=1.0, batch=batch))
    assert "mean objective 5.00 of 3 volumes" in capsys.readouterr().err


def test_a_run_shows_its_curve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for encoding, expected in (("utf-8", "objective 3.00 ▁▅█"), ("ascii", "objective 3.00")):
        monkeypatch.setattr(console.Console, "encoding", encoding)
        with Display() as display:
            follow = display.follow("cube")
            follow(vis.Accepted(request=vis.VisualizeRequest(steps=3)))
            for step in (1, 2, 3):
                follow(vis.Progress(step=step, steps=3, objective=float(step)))
        shown = capsys.readouterr().err
        assert expected in shown
        assert ("▁" in shown) == (encoding == "utf-8")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0, 1.0], "▁▁"),
        ([0.0, 7.0, 3.0], "▁█▄"),
        ([0.0, float("nan"), 1.0], "▁ █"),
        (range(1000), "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██"),
    ],
)
def test_a_curve_of_any_length_fits_a_line(values: Sequence[float], expected: str) -> None:
    assert console.sparkline(values) == expected


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
