"""The model card: the manifest's facts as prose, after Mitchell et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from models.manifest import Evaluation, Interval, Manifest, Training
from training.task import Wording


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _share(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_card(manifest: Manifest, wording: Wording) -> str:
    """Write the card of a classifier.

    Parameters
    ----------
    manifest : Manifest
        Complete but for its `files`.
    wording : Wording
        The task's sentences.

    Returns
    -------
    str
        Markdown. Its figures are the manifest's.
    """
    training, evaluation = manifest.training, manifest.evaluation
    assert training is not None
    assert evaluation is not None
    return "\n\n".join(
        [
            f"# {manifest.name}, version {manifest.version}",
            _what(manifest, wording),
            "## Intended use",
            manifest.intended_use,
            f"**Not for:** {manifest.not_for}",
            "## Data",
            _data(training, wording),
            "## Training",
            _recipe(training),
            "## Evaluation",
            _evaluation(manifest.classes, evaluation, wording),
            "## License",
            f"{manifest.license}\n",
        ]
    )


def _what(manifest: Manifest, wording: Wording) -> str:
    space = manifest.input
    shape = " x ".join(str(length) for length in space.shape)
    settings = ", ".join(f"{name} {value}" for name, value in manifest.architecture.hyperparameters.items())
    size = " x ".join(f"{edge:g}" for edge in space.voxel_size_mm)
    return (
        f"A 3D convolutional network (`{manifest.architecture.name}`: {settings}) "
        f"that {wording.purpose}. Classes, in the order of the logits: {', '.join(manifest.classes)}. The "
        f"logits are the output of `{manifest.classifier_layer}`, before any softmax.\n\n"
        f"Input: {shape} voxels of {size} mm, orientation {space.orientation}, space {space.space}. Model "
        f"units are {space.normalization.words}, "
        f"within {space.intensity_range[0]:g} to {space.intensity_range[1]:g}."
    )


def _data(training: Training, wording: Wording) -> str:
    division = wording.division.format(
        train=len(training.subjects_train), test=len(training.subjects_test), seed=training.seed
    )
    return f"{training.data} License: {training.license}.\n\n{division}"


def _recipe(training: Training) -> str:
    facts = dict(training.recipe)
    phases = facts.pop("phases", [])
    lines = [f"- {name.replace('_', ' ')}: {_plain(value)}" for name, value in facts.items()]
    software = ", ".join(f"{name} {version}" for name, version in training.software.items())
    parts = ["\n".join([*lines, f"- software: {software}"])]
    rows = [row for row in phases if isinstance(row, dict)] if isinstance(phases, list) else []
    if rows:
        head = tuple(name.replace("_", " ") for name in rows[0])
        parts += ["In phases:", _table(head, [tuple(str(value) for value in row.values()) for row in rows])]
    return "\n\n".join(parts)


def _plain(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " to ".join(str(item) for item in value)
    return str(value)


def _evaluation(names: Sequence[str], facts: Evaluation, wording: Wording) -> str:
    figures = [("network", _percent(facts.accuracy), str(facts.accuracy.n))]
    figures += [(name, _percent(value), str(value.n)) for name, value in facts.baselines.items()]
    quantiles = facts.logit_quantiles
    classes = [
        (
            name,
            _percent(facts.per_class[name]),
            *(f"{quantiles[name][level]:.2f}" for level in ("0.05", "0.5", "0.95")),
        )
        for name in names
    ]
    intro = wording.evaluation.format(
        level=f"{facts.accuracy.level:.0%}", method=facts.accuracy.method, chance=f"{facts.chance:.1%}"
    )
    parts = [intro, _table(("classifier", "accuracy", wording.images), figures)]
    if facts.figures:
        rows = [(name, _share(value), str(value.n), value.method) for name, value in facts.figures.items()]
        parts += ["Further figures:", _table(("figure", "value", wording.images, "interval"), rows)]
    parts += [
        "By true class, with the quantiles of the class's own logit on its images:",
        _table(("class", "accuracy", "5 %", "50 %", "95 %"), classes),
        wording.limits,
    ]
    return "\n\n".join(parts)
