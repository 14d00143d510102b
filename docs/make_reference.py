"""Write docs/reference/ from the code, which is the only place where these facts are declared."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
from engine.fields import Checked
from engine.optimizer import OPTIMIZERS
from engine.parameterization import PARAMETERIZATIONS
from engine.regularizer import REGULARIZERS
from engine.spec import default_regularizers
from engine.start import STARTS
from models.onnx_graph.graph import FIRST_OPSET, LAST_OPSET
from models.onnx_graph.operations import OPERATORS
from service import errors
from service.observability.metrics import Metrics
from service.settings import Settings

FOLDER = Path(__file__).parent / "reference"
COVERAGE = Path(__file__).parents[1] / "tests" / "models" / "onnx_graph" / "coverage.json"
NOTE = "<!-- Written by `make docs` from the code; edit there. -->\n"
KINDS = (
    ("Parameterization", "parameterization", PARAMETERIZATIONS),
    ("Start", "start", STARTS),
    ("Regularizers", "regularization.regularizers", REGULARIZERS),
    ("Optimizer", "optimizer", OPTIMIZERS),
)


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def settings_of(kind: type[Checked]) -> list[tuple[str, ...]]:
    """Return a row for each setting of a dataclass of the engine."""
    rows = []
    for field in dataclasses.fields(kind):
        bounds, default = field.metadata.get("bounds"), field.default
        if default is dataclasses.MISSING:
            continue
        if bounds:
            shown = "absent" if default is None else f"{default:g}"
            rows.append((f"`{field.name}`", shown, str(bounds), bounds.doc))
        elif "doc" in field.metadata:
            rows.append((f"`{field.name}`", f"{default or 'absent'}", "", field.metadata["doc"]))
    return rows


def method() -> str:
    """Return the page on the method's settings."""
    header = ("field", "default", "accepted", "meaning")
    spec = engine.Spec(engine.Grid((1,), (1.0,)), engine.Objective(()))
    parts = [
        NOTE,
        "# The method: every setting and its default\n",
        "A field that a request leaves out takes the default given here; `accepted.request` in the stream",
        "shows what was taken. Lengths are mm, angles degrees, smoothing FWHM in mm.\n",
        "## Run\n",
        table(header, settings_of(engine.Spec)),
        "## Objective: each term\n",
        table(header, [row for row in settings_of(engine.Term) if "spread" not in row[0]]),
        "## Transforms\n",
        table(header, settings_of(engine.Transforms)),
        "## Stopping\n",
        table(header, settings_of(engine.Stopping)),
    ]
    defaults = {
        "parameterization": [spec.parameterization.name],
        "start": [spec.start.name],
        "regularization.regularizers": [regularizer.name for regularizer in spec.regularizers],
        "optimizer": [spec.optimizer.name],
    }
    for title, path, kinds in KINDS:
        parts += [f"## {title}\n", f"Default: {', '.join(f'`{name}`' for name in defaults[path])}.\n"]
        if kinds is REGULARIZERS:
            parts.append(_other_defaults())
        for name, kind in kinds.items():
            sentence = (kind.__doc__ or "").strip().split("\n")[0]
            parts.append(f"### `{path}.{name}`\n\n{sentence}\n")
            if rows := settings_of(kind):
                parts.append(table(header, rows))
    return "\n".join(parts)


def _other_defaults() -> str:
    """Say which parameterizations have other default regularizers than the default one."""
    usual = default_regularizers(next(iter(PARAMETERIZATIONS.values()))())
    lines = []
    for name, kind in PARAMETERIZATIONS.items():
        own = default_regularizers(kind())
        if own != usual:
            lines.append(f"With `{name}`: {', '.join(f'`{choice.name}`' for choice in own) or 'none'}.\n")
    return "".join(lines)


def _errors(kind: type[errors.ServiceError] = errors.ServiceError) -> Iterator[type[errors.ServiceError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _errors(child)


def failures() -> str:
    """Return the page on statuses."""
    rows = [
        (f"`{kind.code.name}`", f"`{kind.reason}`", (kind.__doc__ or "").split("\n")[0], _retry(kind))
        for kind in sorted(_errors(), key=lambda kind: kind.code.value[0])
        if "reason" in vars(kind)
    ]
    rows.append(("`INTERNAL`", "`INTERNAL`", "A fault of the server; `error_id` finds it in the log.", "no"))
    text = (
        "Every failure is a gRPC status with `google.rpc.ErrorInfo` (domain `neurofv`, the reason below and\n"
        "facts as metadata), `BadRequest` with the field's path where a field is at fault, `ResourceInfo`\n"
        "where a name is unknown, and `RetryInfo` where trying again helps. Errors are never messages in a\n"
        "stream.\n"
    )
    header = ("code", "reason", "when", "try again")
    client = (
        "The Python client adds reasons of its own: `SERVER_UNREACHABLE` (no answer), `STREAM_BROKEN` and\n"
        "`VOLUME_CORRUPT` (what came is not what was announced), `JOB_CANCELLED` (the watched job).\n"
    )
    return "\n".join([NOTE, "# Errors\n", text, table(header, rows), client])


def _retry(kind: type[errors.ServiceError]) -> str:
    return f"after {kind.retry_after_seconds:g} s" if kind.retry_after_seconds else "no"


def settings() -> str:
    """Return the page on the server's settings."""
    rows = [
        (f"`NEUROFV_{name.upper()}`", _shown(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    text = (
        "Each is an environment variable, or the key of the same name without `NEUROFV_`, in lower case, of\n"
        "the TOML file that `NEUROFV_CONFIG` names. The environment wins.\n"
    )
    return "\n".join(
        [NOTE, "# Settings of the server\n", text, table(("variable", "default", "meaning"), rows)]
    )


def _shown(default: object) -> str:
    return "the shipped `models/zoo`" if isinstance(default, Path) else f"`{default}`"


def metrics() -> str:
    """Return the page on metrics."""
    rows = []
    for family in sorted(Metrics({}).registry.collect(), key=lambda family: family.name):
        if family.name.startswith(("neurofv", "grpc")):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            rows.append((f"`{family.name}{suffix}`", family.type, family.documentation))
    text = "On `http://<host>:8002/metrics`, beside `/livez` and `/readyz`.\n"
    return "\n".join([NOTE, "# Metrics\n", text, table(("metric", "type", "meaning"), rows)])


def operators() -> str:
    """Return the page on ONNX's operators; tests/models/onnx_graph/test_nodes.py checks the counts."""
    found = json.loads(COVERAGE.read_text())
    counts = found["operators"]
    rows = [_operator(name, OPERATORS[name].becomes, counts[name]) for name in sorted(OPERATORS)]
    (several,) = (name for name in counts if name not in OPERATORS)
    rows.append(
        _operator(several, "the functions that ONNX defines by operators of this table", counts[several])
    )
    passed = sum(one["passed"] for one in counts.values())
    left_out = sum(sum(one["left_out"].values()) for one in counts.values())
    text = (
        f"{len(OPERATORS)} operators, in opsets {FIRST_OPSET} to {LAST_OPSET}. A model with any other is "
        "refused, with every\nsuch operator and node named. Weights and whatever else floats are float32, "
        "whatever the model had.\n\n"
        f"Of the {found['cases']} node tests that ONNX brings along, {passed + left_out} need no other "
        f"operators: {passed} pass,\n{left_out} are left out for the reasons given. Each is written for the "
        "opset in which its operator was last changed;\nin every other opset operators are compared with "
        "onnxruntime. The gradient of every operator that has\none is compared with finite differences.\n"
    )
    header = ("operator", "becomes", "opsets", "passed", "left out")
    return "\n".join([NOTE, "# Operators of ONNX that can be imported\n", text, table(header, rows)])


def _operator(name: str, becomes: str, count: dict[str, Any]) -> tuple[str, ...]:
    left_out = "; ".join(f"{number}: {reason}" for reason, number in count["left_out"].items())
    opsets = f"{count['opset']} to {LAST_OPSET}"
    return f"`{name}`" if name in OPERATORS else name, becomes, opsets, str(count["passed"]), left_out


PAGES = {
    "method.md": method,
    "errors.md": failures,
    "settings.md": settings,
    "metrics.md": metrics,
    "operators.md": operators,
}


def main() -> None:
    """Write the pages; with --check, only say whether they are up to date."""
    stale = [name for name, page in PAGES.items() if _read(name) != page()]
    if "--check" in sys.argv:
        sys.exit(f"docs/reference is out of date ({', '.join(stale)}); run: make docs" if stale else 0)
    for name in stale:
        (FOLDER / name).write_text(PAGES[name]())


def _read(name: str) -> str:
    file = FOLDER / name
    return file.read_text() if file.is_file() else ""


if __name__ == "__main__":
    main()
