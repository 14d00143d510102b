"""The model card: the manifest's facts as prose, after Mitchell et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from models.manifest import Interval, Manifest


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_card(manifest: Manifest) -> str:
    """Write the card of a lesion classifier.

    Parameters
    ----------
    manifest : Manifest
        Complete but for its `files`.

    Returns
    -------
    str
        Markdown. It states nothing that the manifest does not.
    """
    return "\n\n".join(
        [
            f"# {manifest.name}, version {manifest.version}",
            _what(manifest),
            "## Intended use",
            manifest.intended_use,
            f"**Not for:** {manifest.not_for}",
            "## Data",
            _data(manifest),
            "## Training",
            _recipe(manifest),
            "## Evaluation",
            _evaluation(manifest),
            "## License",
            f"{manifest.license}\n",
        ]
    )


def _what(manifest: Manifest) -> str:
    space = manifest.input
    shape = " x ".join(str(length) for length in space.shape)
    settings = ", ".join(f"{name} {value}" for name, value in manifest.architecture.hyperparameters.items())
    size = " x ".join(f"{edge:g}" for edge in space.voxel_size_mm)
    return (
        f"A 3D convolutional network (`{manifest.architecture.name}`: {settings}) "
        f"that tells artificial lesions in skull-stripped T1-weighted brains apart. Classes, in the order of "
        f"the logits: {', '.join(manifest.classes)}. The logits are the output of "
        f"`{manifest.classifier_layer}`, before any softmax.\n\n"
        f"Input: {shape} voxels of {size} mm, orientation {space.orientation}, space {space.space}. Model "
        f"units are the image divided by the {space.normalization.quantile} quantile of its nonzero voxels, "
        f"within {space.intensity_range[0]:g} to {space.intensity_range[1]:g}."
    )


def _data(manifest: Manifest) -> str:
    training = manifest.training
    return (
        f"{training.data} License: {training.license}.\n\n"
        f"{len(training.subjects_train)} subjects trained the network and {len(training.subjects_test)} were "
        f"held out; they were divided (seed {training.seed}) before any lesion was drawn, and nobody is in "
        f"both parts. The lists are in `bundle.json`. The lesions are painted by a program: none is real."
    )


def _recipe(manifest: Manifest) -> str:
    facts = dict(manifest.training.recipe)
    phases = facts.pop("phases", [])
    lines = [f"- {name.replace('_', ' ')}: {_plain(value)}" for name, value in facts.items()]
    software = ", ".join(f"{name} {version}" for name, version in manifest.training.software.items())
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


def _evaluation(manifest: Manifest) -> str:
    facts = manifest.evaluation
    figures = [("network", _percent(facts.accuracy), str(facts.accuracy.n))]
    figures += [(name, _percent(value), str(value.n)) for name, value in facts.baselines.items()]
    quantiles = facts.logit_quantiles
    classes = [
        (
            name,
            _percent(facts.per_class[name]),
            *(f"{quantiles[name][level]:.2f}" for level in ("0.05", "0.5", "0.95")),
        )
        for name in manifest.classes
    ]
    return "\n\n".join(
        [
            f"Whole volumes of held-out subjects. Accuracy with its {facts.accuracy.level:.0%} interval "
            f"({facts.accuracy.method}); chance is {facts.chance:.1%}. A baseline guesses the class from one "
            f"number of the image and should stay at chance: it shows that nothing but shape informs.",
            _table(("classifier", "accuracy", "images"), figures),
            "By true class, with the quantiles of the class's own logit on its images:",
            _table(("class", "accuracy", "5 %", "50 %", "95 %"), classes),
            "The held-out subjects come from the same data set as the others. Nothing is known about "
            "other scanners, ages or pathologies, or about lesions of other sizes, intensities or "
            "orientations.",
        ]
    )
