"""The outputs of the real service, judged by the BIDS validator."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neurofv import InvalidRequest
from neurofv.bids import DESCRIPTION, describe_dataset
from neurofv.cli.app import app
from tests.client.running import MODEL
from tests.server import RunningServer

SMALL = ["--steps", "4", "--canvas", "48", "--no-picture"]


def validate(folder: Path) -> dict[str, set[str]]:
    """Run the validator; return the places of each kind of error."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    command = [str(validator), str(folder), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found: dict[str, set[str]] = {}
    for issue in json.loads(done.stdout)["issues"]["issues"]:
        if issue["severity"] == "error":
            found.setdefault(issue["code"], set()).add(issue.get("location", ""))
    assert bool(found) == bool(done.returncode), done.stderr
    return found


@pytest.fixture(scope="module")
def made(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class with snapshots, and a batch of two channels, in one data set."""
    folder = tmp_path_factory.mktemp("made") / "derivatives"
    common = [MODEL, *SMALL, "--bids", "-o", str(folder), "--server", server.target]
    run = CliRunner().invoke
    snapshots = ["--every", "2", "--snapshots", str(folder)]
    for choices in (["--class", "cube", *snapshots], ["--layer", "blocks.1.conv", "--channel", "0,3"]):
        result = run(app, ["visualize", *common, *choices])
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "dataset"))


@pytest.fixture
def named(dataset: Path) -> Path:
    """The same files under names that BIDS knows: what is ignored for its name is not read."""
    (dataset / ".bidsignore").unlink()
    folder = dataset / "sub-none" / "anat"
    folder.mkdir(parents=True)
    # What BIDS asks of a scan that was worked on, and only of one.
    (dataset / "T1w.json").write_text('{"SkullStripped": true}')
    for path in sorted(dataset.glob("*_fv.*")):
        entities = dict(part.split("-", 1) for part in path.name.split("_")[:-1])
        label = entities["layer"] + entities["unit"] + entities["desc"]
        ending = path.name.partition(".")[2]
        path.rename(folder / f"sub-none_space-{entities['space']}_desc-{label}_T1w.{ending}")
    return dataset


def test_the_validator_finds_no_error(dataset: Path) -> None:
    volumes = {path.name.rpartition("_desc-")[2] for path in dataset.glob("*_fv.nii.gz")}
    assert volumes == {"step00002_fv.nii.gz", "final_fv.nii.gz", "gradient_fv.nii.gz"}
    assert len(list(dataset.glob("*_fv.json"))) == 3
    assert validate(dataset) == {}


def test_the_validator_finds_no_error_in_what_is_ignored_for_its_name(named: Path) -> None:
    assert len(list(named.glob("sub-none/anat/*_T1w.*"))) == 10
    assert validate(named) == {}


def test_only_names_are_to_be_ignored(dataset: Path) -> None:
    (dataset / ".bidsignore").unlink()
    files = {f"/{path.name}" for path in dataset.iterdir()} - {f"/{DESCRIPTION}", "/README.md"}
    assert validate(dataset) == {"NOT_INCLUDED": files}


def test_a_data_set_without_description_is_an_error(dataset: Path) -> None:
    (dataset / DESCRIPTION).unlink()
    assert "MISSING_DATASET_DESCRIPTION" in validate(dataset)


@pytest.mark.parametrize(
    "wrong", [{"GeneratedBy": []}, {"GeneratedBy": [{}]}, {"DatasetType": "volumes"}, {"BIDSVersion": 1}]
)
def test_a_wrong_description_is_an_error(wrong: dict, dataset: Path) -> None:
    facts = json.loads((dataset / DESCRIPTION).read_text())
    (dataset / DESCRIPTION).write_text(json.dumps({**facts, **wrong}))
    assert validate(dataset) == {"JSON_SCHEMA_VALIDATION_ERROR": {f"/{DESCRIPTION}"}}


def test_another_name_is_an_error(dataset: Path) -> None:
    (dataset / "feature.nii.gz").write_bytes(next(dataset.glob("*_fv.nii.gz")).read_bytes())
    assert validate(dataset) == {"NOT_INCLUDED": {"/feature.nii.gz"}}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _mistype(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "SpatialReference": 7}))


@pytest.mark.parametrize(
    ("ending", "spoil", "error"),
    [
        ("json", _cut, "JSON_INVALID"),
        ("json", _mistype, "JSON_SCHEMA_VALIDATION_ERROR"),
        ("nii.gz", _cut, "NIFTI_HEADER_UNREADABLE"),
        ("nii.gz", lambda path: path.write_bytes(b""), "EMPTY_FILE"),
    ],
)
def test_a_broken_file_is_an_error(
    ending: str, spoil: Callable[[Path], object], error: str, named: Path
) -> None:
    (file,) = named.glob(f"sub-none/anat/*_desc-classifier1final_T1w.{ending}")
    spoil(file)
    assert validate(named)[error] == {f"/{file.relative_to(named)}"}


def test_the_description_names_what_made_the_volumes_and_their_license(made: Path) -> None:
    facts = json.loads((made / DESCRIPTION).read_text())
    # What BIDS requires of a derivative; the validator lets it be absent there.
    assert (facts["Name"], facts["BIDSVersion"]) == ("Feature visualizations", "1.11.1")
    assert facts["DatasetType"] == "derivative"
    assert facts["GeneratedBy"] == [{"Name": "neurofv", "Version": "0.1.0"}]
    assert facts["License"] == "CC0-1.0"
    sidecar = json.loads(next(made.glob("*_unit-3_desc-final_fv.json")).read_text())
    assert sidecar["SpatialReference"] == f"neurofv:{MODEL}/1/reference.nii.gz"
    assert "blocks.1.conv:3" in sidecar["Description"]


def test_a_description_is_added_to(tmp_path: Path) -> None:
    describe_dataset(tmp_path, "0.1.0", "CC0")
    (tmp_path / "README.md").write_text("ours")
    describe_dataset(tmp_path, "0.1.0", "CC0")
    describe_dataset(tmp_path, "0.2.0", "CC-BY-4.0")
    facts = json.loads((tmp_path / DESCRIPTION).read_text())
    assert [maker["Version"] for maker in facts["GeneratedBy"]] == ["0.1.0", "0.2.0"]
    assert facts["License"] == "CC0; CC-BY-4.0"
    assert (tmp_path / "README.md").read_text() == "ours"


@pytest.mark.parametrize("text", ['{"Name": "raw", "BIDSVersion": "1.9.0"}', "[]", "{"])
def test_another_data_set_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text(text)
    with pytest.raises(InvalidRequest, match="another data set"):
        describe_dataset(tmp_path)
    refused = CliRunner().invoke(app, ["visualize", MODEL, "--class", "cube", "--bids", "-o", str(tmp_path)])
    assert refused.exit_code == 2
    assert "another data set" in " ".join(refused.output.split())


def test_a_data_set_is_no_single_file(tmp_path: Path) -> None:
    output = str(tmp_path / "cube.nii.gz")
    refused = CliRunner().invoke(app, ["visualize", MODEL, "--class", "cube", "--bids", "-o", output])
    assert refused.exit_code == 2
    assert "name a directory" in " ".join(refused.output.split())
