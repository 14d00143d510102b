"""A report as one page: what an audit has found, for people, without a host to ask.

Needs the extra `audit`.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from neurofv.audit import figures
from neurofv.audit.album import Album
from neurofv.errors import InvalidRequest
from neurofv.files import write_atomically
from neurofv.viewer import SETTING, VERSION, viewer_license, viewer_script

REPORT, PAGE = "report.json", "report.html"
_NO_VIEWER = (
    "This page has no 3D viewer, for it was not at hand when the page was written. To add it, install npm or "
    f"name the viewer's file in {SETTING}, and write the page anew with `neurofv audit report`."
)
_COLORS = {
    True: "Grey: the brain from which the pictures began. Warm: brighter than it, cool: darker.",
    False: "Grey: the picture as it is.",
}


def write_html(folder: Path) -> Path:
    """Write an audit's report as one page that opens from disk, and prints.

    Parameters
    ----------
    folder : Path
        As `neurofv audit run` has written it: `report.json`, and the volumes and pictures that it names.
        Without its `reference.nii.gz`, the model's reference brain, the median of the pictures
        stands in for it.

    Returns
    -------
    Path
        The page, `report.html` in the folder.

    Raises
    ------
    InvalidRequest
        The folder holds no report, or a file that the report names is missing or another one.
    OSError
        The page cannot be written.
    """
    report = read_report(folder)
    script = viewer_script()
    page = _Page(report, Album(folder, report), script).render()
    write_atomically(folder / PAGE, page.encode())
    return folder / PAGE


def read_report(folder: Path) -> dict[str, Any]:
    """Read a folder's report.

    Raises
    ------
    InvalidRequest
        There is none, or it is of another version.
    """
    try:
        report: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        version = report["report"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = (
            f"it holds no readable {REPORT} ({error}); name a folder that `neurofv audit run` has written"
        )
        raise InvalidRequest("folder", str(folder), remedy) from None
    if version != 1:
        remedy = (
            f"its {REPORT} is of version {version!r}, which this client does not know; use its own neurofv"
        )
        raise InvalidRequest("folder", str(folder), remedy)
    return report


@dataclass
class _Page:
    """The page's parts, from a report."""

    report: Mapping[str, Any]
    album: Album
    script: str | None

    def render(self) -> str:
        model = self.report["model"]
        # What opens what is folded before it is printed is of use without a viewer, too.
        css, js, paper = _own("page.css"), _own("page.js"), _own("print.js")
        units = [self._unit(unit) for unit in self.report["units"]]
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
        )
        return environment.from_string(_own("report.html.j2")).render(
            report=self.report,
            title=f"{model['name']}/{model['version']}",
            policy=_policy(css, [paper, *([js, self.script] if self.script else [])]),
            css=Markup(css),
            js=Markup(js),
            paper=Markup(paper),
            viewer=_packed(self.script) if self.script else "",
            viewer_version=VERSION,
            license=viewer_license(),
            no_viewer=_NO_VIEWER,
            colors=_COLORS[self.album.ground is not None],
            volumes=list(self.album.volumes.items()),
            levels=figures.LEVELS,
            outcome=figures.outcome(self.report),
            shortcuts=figures.shortcuts(self.report),
            thresholds=figures.thresholds(self.report["thresholds"]),
            people=any(unit["exemplars"] for unit in units),
            units=units,
            columns=figures.COLUMNS,
            facts=_facts(self.report),
            layers=_layers(self.report),
            card=Markup(_markdown(model["card"])),
            tried=_tried(self.report),
            failed=_failed(self.report),
            reading=figures.READING,
        )

    def _unit(self, unit: Mapping[str, Any]) -> dict[str, Any]:
        pictures = unit["pictures"]
        own = [picture for picture in pictures if picture["control"] == "none"]
        first = (own or pictures)[:1]
        verdicts = figures.by_gravity(unit["verdicts"])
        return {
            "id": unit["id"],
            "name": unit["name"],
            "kind": unit["kind"],
            "what": _what(unit),
            "first": self.album.still(unit, first[0], large=True) if first else None,
            "volume": self.album.volume(unit, first[0]) if first and self.script else None,
            "others": [self.album.still(unit, picture) for picture in pictures if picture not in first],
            "exemplars": [self.album.exemplar(unit, exemplar) for exemplar in unit["exemplars"]],
            "verdicts": verdicts,
            "worst": verdicts[0] if verdicts else {"level": "unknown"},
            "line": _line(unit, first),
            "agreement": _agreement(unit),
            "bars": figures.activation_bars(
                [(figures.picture_name(each), each["evaluation"]) for each in own]
            ),
            "rows": [
                {
                    "name": figures.picture_name(each),
                    "cells": figures.picture_values(each["evaluation"]),
                    "file": each["volume"],
                    "sha256": each["sha256"],
                }
                for each in pictures
            ],
        }


def _own(name: str) -> str:
    return (resources.files("neurofv.audit") / "templates" / name).read_text(encoding="utf-8")


def _policy(css: str, scripts: Sequence[str]) -> str:
    """Return what the page allows itself: its own scripts and styles, by digest, and no host."""
    own = " ".join(map(_digest, scripts))
    return (
        f"default-src 'none'; script-src {own}; style-src {_digest(css)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(script: str) -> str:
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()


def _markdown(text: str) -> str:
    # Neither HTML of its own nor images, which would ask a host.
    reader = MarkdownIt("js-default", {"linkify": False}).disable(["image"])
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            # It stands below headings of the page's own.
            token.tag = f"h{min(6, int(token.tag[1:]) + 3)}"
    return str(reader.renderer.render(tokens, reader.options, {}))


def _what(unit: Mapping[str, Any]) -> str:
    if unit["kind"] == "class":
        return f"Logit of this class, layer {unit['layer']}"
    return f"Channel {unit['channel']} of layer {unit['layer']}"


def _line(unit: Mapping[str, Any], first: list[Mapping[str, Any]]) -> dict[str, str]:
    """Return a unit's line in the overview: of its first picture's strategy."""
    strategy = first[0]["strategy"] if first else ""
    control = unit["control"].get(strategy) or {}
    return {
        "percentile": figures.percent(first[0]["evaluation"].get("percentile") if first else None),
        "seeds": figures.number((unit["seed_agreement"].get(strategy) or {}).get("median")),
        "random": figures.number(control.get("seed_agreement")),
        "own_vs_random": figures.number(control.get("own_vs_random")),
    }


def _agreement(unit: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for strategy in dict.fromkeys([*unit["seed_agreement"], *unit["control"]]):
        seeds, control = unit["seed_agreement"].get(strategy) or {}, unit["control"].get(strategy) or {}
        own = unit.get("figures", {}).get(strategy) or {}
        rows.append(
            {
                "strategy": strategy,
                "median": figures.number(seeds.get("median")),
                "pairs": figures.number(seeds.get("pairs")),
                "random": figures.number(control.get("seed_agreement")),
                "own_vs_random": figures.number(control.get("own_vs_random")),
                "selectivity": figures.percent(own.get("selectivity")),
                "random_selectivity": figures.percent(control.get("selectivity")),
            }
        )
    return rows


def _facts(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    model, space = report["model"], report["model"]["input"]
    return [
        ("Model", f"{model['name']}, version {model['version']}"),
        ("Digest", _code(model["digest"])),
        *(
            (f"Second model of {name}", Markup("{model}/{version} ").format(**each) + _code(each["digest"]))
            for name, each in report.get("transfers", {}).items()
        ),
        ("Plan, SHA-256", _code(report["plan_sha256"])),
        ("Classes", ", ".join(model["classes"]) or figures.NONE),
        ("Classifier", model["classifier_layer"] or figures.NONE),
        (
            "Input",
            f"{_times(space['shape'])} voxels of {_times(space['voxel_size_mm'])} mm, {space['orientation']}",
        ),
        ("Space", space["space"] or figures.NONE),
        ("License", model["license"] or figures.NONE),
    ]


def _code(text: str) -> Markup:
    return Markup('<span class="hash">{}</span>').format(text)


def _layers(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the layer map: what each layer is, how far its units see, and which were audited."""
    model = report["model"]
    shape, size = model["input"]["shape"], model["input"]["voxel_size_mm"]
    longest = max((edge * mm for edge, mm in zip(shape, size, strict=True)), default=1.0)
    rows = []
    for layer in model["layers"]:
        reach = longest if layer["whole_input"] else max(layer["receptive_field_mm"], default=0.0)
        audited = [unit["name"] for unit in report["units"] if unit["layer"] == layer["name"]]
        rows.append(
            {
                **{key: layer[key] for key in ("name", "type", "channels")},
                "output": _times(layer["output_shape"]) or "vector",
                "sees": "everything" if layer["whole_input"] else _times(layer["receptive_field_mm"]),
                "reach": round(min(100.0, 100 * reach / longest), 1),
                "used": f"{len(audited)} unit{'s' if len(audited) > 1 else ''}" if audited else "",
            }
        )
    return rows


def _tried(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    plan = report["plan"]
    pictures = [picture for unit in report["units"] for picture in unit["pictures"]]
    controls = sum(picture["control"] != "none" for picture in pictures)
    lines: list[tuple[str, Any]] = [
        (
            "Pictures",
            f"{len(pictures)} of {len(report['units'])} units, {controls} of them of random weights",
        ),
    ]
    for name, choices in (plan.get("strategies") or {}).items():
        words = ", ".join(f"{key}: {json.dumps(value)}" for key, value in (choices or {}).items())
        lines.append(
            (f"Strategy {name}", Markup("<code>{}</code>").format(words) if words else "the defaults")
        )
    lines.append(("Seeds", ", ".join(str(seed) for seed in plan.get("seeds") or []) or figures.NONE))
    chosen = [name.replace("_", " ") for name, wanted in (plan.get("controls") or {}).items() if wanted]
    lines.append(("Controls", ", ".join(chosen) or "none"))
    if images := report.get("images"):
        classes = ", ".join(f"{count} of {name}" for name, count in images["classes"].items())
        lines.append(("Real images", f"{images['count']}{f': {classes}' if classes else ''}"))
    section = report["shortcuts"]
    searched = "no" if section is None else "could not be tested" if "untestable" in section else "yes"
    lines.append(("Search for shortcuts", searched))
    return lines


def _failed(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what could not be made; what is the network's own comes before its control's."""
    names = {unit["id"]: unit["name"] for unit in report["units"]}
    lines = [
        {
            **line,
            "name": names.get(line["unit"], line["unit"]),
            "whose": "the network" if line["control"] == "none" else line["control"].replace("_", " "),
        }
        for line in report["failed"]
    ]
    return sorted(lines, key=lambda line: bool(line["control"] != "none"))


def _times(numbers: list[float]) -> str:
    """Write 2x3x4, or one number if all are the same, or nothing for a vector."""
    texts = [f"{value:g}" for value in numbers]
    return texts[0] if len(set(texts)) == 1 and len(texts) > 1 else "x".join(texts)
