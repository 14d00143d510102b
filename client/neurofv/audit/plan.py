"""The plan of an audit: what is looked at, how, and what must hold."""

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from neurofv.audit.reading import check_plain, parse, read_text
from neurofv.errors import InvalidRequest
from neurofv.requests import Choices, build_request, split_model

# Chosen by the plan as a whole, of no use to an audit, or such that two runs would differ.
_NOT_OF_A_STRATEGY = {
    **dict.fromkeys(("class_name", "layer", "channel"), "name it in `units`"),
    **dict.fromkeys(("seed", "samples"), "name it in `seeds`"),
    "version": "write `model: NAME/VERSION`",
    "real_images": "name `images`, and set `controls.real_images`",
    "control": "set `controls.random_weights`",
    "minimize": "verdicts are on what drives a unit; leave it out",
    **dict.fromkeys(
        ("voxel", "position_mm", "whole_layer", "direction", "measure", "compare", "objective", "subject"),
        "an audit drives classes and channels; leave it out",
    ),
    **dict.fromkeys(("snapshot_every", "request_id", "detach"), "the audit sets it; leave it out"),
}
_TOP = re.compile(r"top (\d+) by variance")
# To JSON 8.0 is a whole number, but not to what counts with it.
_VALIDATOR = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@dataclass(frozen=True)
class Group:
    """Units that are asked for together.

    Attributes
    ----------
    path : str
        Where the plan names them, for errors.
    classes : tuple of str or None
        Names of classes; empty for all; None for channels.
    layer : str
        The channels' layer.
    channels : tuple of int
        Empty for all.
    top : int
        Only so many, those that vary most over real images; 0 for no such choice.
    """

    path: str
    classes: tuple[str, ...] | None = None
    layer: str = ""
    channels: tuple[int, ...] = ()
    top: int = 0


@dataclass(frozen=True)
class Plan:
    """A plan that has been read and checked.

    Attributes
    ----------
    content : dict
        With every default filled in.
    text : str
        As it was written.
    folder : Path
        Where `images` begins.
    """

    content: dict[str, Any]
    text: str
    folder: Path
    groups: tuple[Group, ...] = field(init=False)

    def __post_init__(self) -> None:
        groups = tuple(_group(entry, f"units[{index}]") for index, entry in enumerate(self.content["units"]))
        object.__setattr__(self, "groups", groups)

    @property
    def model(self) -> tuple[str, int]:
        """The model's name and version; 0 for the newest."""
        return split_model(self.content["model"], "model")

    @property
    def strategies(self) -> dict[str, dict[str, Any]]:
        """Choices of `Client.visualize`, by name."""
        found: dict[str, dict[str, Any]] = self.content["strategies"]
        return found

    @property
    def seeds(self) -> list[int]:
        """Seeds of the pictures."""
        return list(self.content["seeds"])

    @property
    def random_weights(self) -> bool:
        """Whether the network with shuffled weights is visualized too."""
        return bool(self.content["controls"]["random_weights"])

    @property
    def paths(self) -> bool:
        """Whether activations are compared with real images' by layer."""
        return bool(self.content["controls"]["real_images"])

    @property
    def images(self) -> Path | None:
        """Folder of the real images."""
        return self.folder / self.content["images"] if "images" in self.content else None

    @property
    def thresholds(self) -> dict[str, float]:
        """What must hold."""
        return dict(self.content["thresholds"])

    @property
    def sha256(self) -> str:
        """Digest of the content as canonical JSON: comments and the order of keys do not count."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@cache
def schema(name: str) -> dict[str, Any]:
    """Return the published JSON schema `plan` or `report`."""
    text = (resources.files("neurofv.audit") / f"{name}.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def read_plan(source: str | Path | Mapping[str, Any]) -> Plan:
    """Read and check a plan.

    Parameters
    ----------
    source : str, Path or mapping
        A YAML file, or its content; a file's `images` lie beside it, a mapping's in the working directory.

    Returns
    -------
    Plan
        With every default filled in.

    Raises
    ------
    InvalidRequest
        It is no plan; the error names the field, its value and the remedy.
    OSError
        The file cannot be read.
    """
    if isinstance(source, Mapping):
        check_plain(source)
        content, folder = copy.deepcopy(dict(source)), Path()
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    else:
        folder, text = Path(source).parent, read_text(Path(source))
        content = parse(text, source)
        check_plain(content)
    error = best_match(_VALIDATOR(schema("plan")).iter_errors(content))
    if error is not None:
        raise _said(error)
    _fill(content, schema("plan"))
    plan = Plan(content, text, folder)
    for name, choices in plan.strategies.items():
        _check_strategy(name, choices)
    _check_needs(plan)
    return plan


def _group(entry: Mapping[str, Any], path: str) -> Group:
    if "classes" in entry:
        if len(entry) > 1:
            raise InvalidRequest(path, dict(entry), "give classes and a layer as two entries of the list")
        named = entry["classes"]
        return Group(path, classes=() if named == "all" else tuple(named))
    channels = entry["channels"]
    if isinstance(channels, str):
        top = _TOP.fullmatch(channels)
        return Group(path, layer=entry["layer"], top=int(top[1]) if top else 0)
    return Group(path, layer=entry["layer"], channels=tuple(channels))


def _said(error: ValidationError) -> InvalidRequest:
    """Turn what the schema says into an error that names the field, the value and the remedy."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    path = path.lstrip(".") or "plan"
    known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        name = sorted(str(key) for key in error.instance if key not in known)[0]
        remedy = f"there is no such key; there are: {', '.join(known)}"
        return InvalidRequest(_under(path, name), error.instance.get(name), remedy)
    if error.validator in ("required", "dependentRequired"):
        missing = next(name for name in (*known, "") if repr(name) in error.message.split(" is ")[0])
        return InvalidRequest(_under(path, missing), None, f"give {known[missing]['description']}")
    if error.validator == "pattern" and "propertyNames" in error.absolute_schema_path:
        return InvalidRequest(path, error.instance, f"name it with {error.schema['description']}")
    return InvalidRequest(path, error.instance, f"give {_described(error)}")


def _described(error: ValidationError) -> str:
    """Return what the schema says of a value, or of the nearest thing that holds it."""
    part: Any = schema("plan")
    found: str = part["description"]
    for step in error.absolute_schema_path:
        part = part[step]
        if isinstance(part, Mapping) and isinstance(part.get("description"), str):
            found = part["description"]
    return found


def _under(path: str, name: str) -> str:
    return name if path == "plan" else f"{path}.{name}"


def _fill(content: dict[str, Any], form: Mapping[str, Any]) -> None:
    """Fill in the schema's defaults, in place."""
    for name, part in form.get("properties", {}).items():
        if name not in content and "default" in part:
            content[name] = copy.deepcopy(part["default"])
        if isinstance(content.get(name), dict):
            _fill(content[name], part)


def _check_strategy(name: str, choices: Mapping[str, Any]) -> None:
    """Make sure that a strategy's choices make a request whose result does not depend on the clock."""
    path = f"strategies.{name}"
    for choice, value in choices.items():
        if choice in _NOT_OF_A_STRATEGY:
            raise InvalidRequest(f"{path}.{choice}", value, _NOT_OF_A_STRATEGY[choice])
        if choice not in Choices.__annotations__:
            valid = ", ".join(sorted(Choices.__annotations__.keys() - _NOT_OF_A_STRATEGY))
            raise InvalidRequest(f"{path}.{choice}", value, f"there is no such choice; there are: {valid}")
    if isinstance(choices.get("stopping"), Mapping) and "seconds" in choices["stopping"]:
        remedy = "a limit of time makes each run another; give steps, or plateau_looks"
        raise InvalidRequest(f"{path}.stopping.seconds", choices["stopping"]["seconds"], remedy)
    try:
        request = build_request("any", class_name="any", **choices)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}.{error.field}", error.value, error.remedy) from None
    if request.start.WhichOneof("kind") not in (None, "reference_brain"):
        remedy = (
            "pictures are compared by what they change in the reference brain: begin there, or leave it out"
        )
        raise InvalidRequest(f"{path}.start", choices["start"], remedy)


def _check_needs(plan: Plan) -> None:
    """Make sure that what is asked for has what it needs."""
    content, limits = plan.content, plan.thresholds
    for needed, name, value, remedy in (
        (plan.paths, "controls.real_images", True, "name `images`, with a class each"),
        (content["probes"], "probes", True, "name `images`, which the nuisances are added to"),
        ("labels" in content, "labels", content.get("labels"), "name `images`, whose classes they are"),
        ("shortcuts" in limits, "thresholds.shortcuts", limits.get("shortcuts"), "name `images`"),
    ):
        if needed and plan.images is None:
            raise InvalidRequest(name, value, f"{remedy}, or leave it out")
    for group in plan.groups:
        if group.top and plan.images is None:
            value = f"top {group.top} by variance"
            raise InvalidRequest(
                f"{group.path}.channels", value, "name `images` to rank them on, or list them"
            )
    if "shortcuts" in limits and not content["probes"]:
        raise InvalidRequest(
            "thresholds.shortcuts", limits["shortcuts"], "set `probes: true`, or leave it out"
        )
    if "seed_agreement" in limits and len(plan.seeds) < 2:
        raise InvalidRequest(
            "thresholds.seed_agreement", limits["seed_agreement"], "give two `seeds` at least"
        )
    if "above_random" in limits and len(plan.seeds) < 2:
        remedy = "give two `seeds` at least, for agreement is part of it"
        raise InvalidRequest("thresholds.above_random", limits["above_random"], remedy)
    if "above_random" in limits and not plan.random_weights:
        remedy = "set `controls.random_weights: true`, or leave it out"
        raise InvalidRequest("thresholds.above_random", limits["above_random"], remedy)
    if plan.images is not None and not plan.images.is_dir():
        raise InvalidRequest(
            "images", str(content["images"]), f"there is no folder {plan.images}; name another"
        )
