"""The bill of materials, judged by CycloneDX's own schema."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [importlib.metadata.distribution(Requirement(each).name) for each in PROJECT["dependencies"]]


def _write(out: Path, python: Path) -> str:
    command = [sys.executable, str(ROOT / "deploy" / "sbom.py"), str(out), str(python)]
    subprocess.run(command, check=True, timeout=240)
    return out.read_text()


def _faults(facts: dict) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(facts))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter for which the service's requirements are installed, as far as a bill tells."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in NEEDED:
        facts = site / f"{found.name}-{found.version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(found.read_text("METADATA") or "")
    return folder / "bin" / "python"


def test_the_bill_is_valid_repeatable_and_names_what_the_service_needs(python: Path, tmp_path: Path) -> None:
    first, second = (_write(tmp_path / name / "sbom.cdx.json", python) for name in "ab")
    assert first == second
    facts = json.loads(first)
    assert _faults(facts) is None
    assert facts["metadata"]["component"]["name"] == PROJECT["name"]
    versions = {canonicalize_name(each["name"]): each["version"] for each in facts["components"]}
    assert versions == {canonicalize_name(found.name): found.version for found in NEEDED}
    assert not {"serialNumber", "timestamp"} & {*facts, *facts["metadata"]}
    licensed = [each for each in facts["components"] if each.get("licenses")]
    assert len(licensed) > 0.8 * len(NEEDED)


@pytest.mark.parametrize("wrong", [{"components": [{"name": "torch"}]}, {"component": []}, {"version": "1"}])
def test_what_is_no_bill_is_refused(wrong: dict) -> None:
    facts = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    assert _faults(facts) is None
    assert _faults({**facts, **wrong}) is not None
