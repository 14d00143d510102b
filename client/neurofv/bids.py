"""A folder of results as a derivative data set of BIDS, the Brain Imaging Data Structure."""

import json
from pathlib import Path
from typing import Any

from neurofv.errors import InvalidRequest
from neurofv.files import write_atomically

DESCRIPTION = "dataset_description.json"
# The version whose rules these files follow.
VERSION = "1.11.1"
_NAME = "neurofv"
_README = """\
# Feature visualizations

Each volume is synthetic: the input that drives a unit of a 3D CNN, found by optimization. None is a scan, and
none has a subject. A volume that was derived from a person's image says so in its sidecar
(`provenance.subject_sha256`).

`space-<space>_model-<model>_layer-<layer>_unit-<unit>_desc-<label>_fv.nii.gz`

- space: the model's anatomical space
- model, layer, unit: what was driven, letters and digits only; the sidecar has the full names
- item: which volume of a request, where several drive one unit
- id, strategy, seed: in an audit, which of its units (layers may share letters and digits), and how it was
  driven
- desc: `final`, the result; `step<n>`, on the way to it; `gradient`, `jacobian`, `opacity`, belonging to it;
  before that, `random<n>` for a control with random weights, and `seed<n>` for one of several samples

The sidecar of a final volume holds the request with every default filled in, its figures, the digests of all
files and the versions of the software. BIDS has no suffix for feature visualizations yet, so `.bidsignore`
names them.
"""
# BIDS knows neither the suffix nor the entities model, layer and unit.
_IGNORE = """\
# Feature visualizations, their sidecars and pictures: BIDS has no suffix for them.
space-*_model-*_layer-*_unit-*_fv.nii.gz
space-*_model-*_layer-*_unit-*_fv.json
space-*_model-*_layer-*_unit-*_fv.png
overview.png
"""


def check_dataset(folder: Path) -> None:
    """Make sure that a folder holds no other data set than one of ours.

    Parameters
    ----------
    folder : Path
        Where results are to lie; it need not exist.

    Raises
    ------
    InvalidRequest
        Its description is another data set's, or cannot be read.
    """
    _read(folder)


def describe_dataset(folder: Path, version: str = "", rights: str = "") -> tuple[Path, ...]:
    """Write what makes a folder of results a data set; what is there already is added to.

    Parameters
    ----------
    folder : Path
        Holds, or will hold, volumes under the server's names; made if missing.
    version : str
        Version of neurofv that made the results; empty if it is not known.
    rights : str
        License of the model's data, which shine through in the volumes; empty if it is not known.

    Returns
    -------
    tuple of Path
        `dataset_description.json`, `README.md` and `.bidsignore`.

    Raises
    ------
    InvalidRequest
        The folder is another data set.
    OSError
        A file cannot be written.
    """
    facts = _read(folder)
    makers: list[dict[str, Any]] = facts.setdefault("GeneratedBy", [])
    maker = {"Name": _NAME, **({"Version": version} if version else {})}
    if maker not in makers:
        makers.append(maker)
    if rights and rights not in (known := [part for part in facts.get("License", "").split("; ") if part]):
        facts["License"] = "; ".join([*known, rights])
    write_atomically(folder / DESCRIPTION, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
    for name, text in {"README.md": _README, ".bidsignore": _IGNORE}.items():
        # An owner's own words stay.
        if not (folder / name).exists():
            write_atomically(folder / name, text.encode())
    return folder / DESCRIPTION, folder / "README.md", folder / ".bidsignore"


def _read(folder: Path) -> dict[str, Any]:
    """Return the description that a folder has, or the beginning of one."""
    path = folder / DESCRIPTION
    if not path.exists():
        return {"Name": "Feature visualizations", "BIDSVersion": VERSION, "DatasetType": "derivative"}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        ours = any(maker["Name"] == _NAME for maker in facts["GeneratedBy"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        remedy = "it describes another data set; name a folder of its own, such as derivatives/neurofv"
        raise InvalidRequest("path", str(path), remedy)
    found: dict[str, Any] = facts
    return found
