"""A MONAI bundle becomes one of ours, with what its metadata say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from models import MonaiBundleUnusable, read_bundle
from models.__main__ import app
from models.importing import Facts, import_monai
from tests.models.importing.conftest import SHAPE

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [2, 4],
    "strides": [2],
    "num_res_units": 1,
    "norm": "batch",
}
METADATA = {
    "version": "0.3.1",
    "name": "Little segmentation",
    "license": "CC-BY-4.0",
    "intended_use": "Tests.",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1, "spatial_shape": list(SHAPE), "value_range": [0, 1]}},
        "outputs": {
            "pred": {"num_channels": 2, "spatial_shape": list(SHAPE), "channel_def": {"0": "no", "1": "yes"}}
        },
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle as MONAI's own tools lay it out."""
    root = tmp_path / "little"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    inference = {
        "bundle_root": ".",
        "device": "cuda:0",
        "network_def": NETWORK,
        "network": "$@network_def.to(@device)",
    }
    (root / "configs" / "inference.json").write_text(json.dumps(inference))
    torch.save(network().state_dict(), root / "models" / "model.pt")
    return root


def network() -> torch.nn.Module:
    from monai.networks.nets import UNet

    torch.manual_seed(4)
    arguments: dict[str, Any] = {key: value for key, value in NETWORK.items() if key != "_target_"}
    return UNet(**arguments).eval()


def test_a_monai_bundle_is_imported_with_its_weights(folder: Path, reference: Path, tmp_path: Path) -> None:
    bundle = import_monai(folder, tmp_path, Facts("little"), reference)
    volumes = torch.rand(2, 1, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(volumes), network()(volumes), atol=1e-5, rtol=1e-5)
    manifest = bundle.manifest
    assert (manifest.license, manifest.intended_use, manifest.classes) == ("CC-BY-4.0", "Tests.", ())
    assert manifest.imported is not None
    assert manifest.imported.source == "MONAI bundle Little segmentation 0.3.1"


def test_the_command_takes_it(folder: Path, reference: Path, tmp_path: Path) -> None:
    command = [
        "import",
        "--monai",
        str(folder),
        "--reference",
        str(reference),
        "--out",
        str(tmp_path / "out"),
    ]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    assert read_bundle(tmp_path / "out" / "little" / "1").manifest.name == "little"
    assert CliRunner().invoke(app, [*command, "some.onnx"]).exit_code == 2


class Harm:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path(self.place),))  # type: ignore[attr-defined]


def test_what_is_no_monai_bundle_is_named_and_leaves_nothing(
    folder: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refused(words: str) -> None:
        with pytest.raises(MonaiBundleUnusable, match=words):
            import_monai(folder, out, Facts("little"), reference)
        assert not out.exists()

    harm, touched = Harm(), tmp_path / "touched"
    harm.place = str(touched)  # type: ignore[attr-defined]
    weights = folder / "models" / "model.pt"
    torch.save({"model": harm}, weights)
    refused(r"models/model.pt does not fit the network")
    assert not touched.exists()
    other = {**NETWORK, "channels": [2, 8]}
    torch.save(network().state_dict(), weights)
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": other}))
    refused(r"models/model.pt does not fit the network.*size mismatch")
    (folder / "configs" / "inference.json").write_text(json.dumps({"postprocessing": {}}))
    refused("defines none of network_def, network")
    (folder / "configs" / "inference.json").unlink()
    refused("has none of configs/inference.json")
    (folder / "configs" / "metadata.json").unlink()
    refused("no readable configs/metadata.json")
