"""What can be wrong with a model, in words that a caller may read.

Messages name the model, the version, the file or the field, never a path of the machine, because the service
passes them on to callers. Every class keeps its facts as attributes and survives pickling, because bundles
are also read in worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ModelError(Exception):
    """Anything wrong with a model, a bundle or a request for one of its parts."""


def bundle_label(path: str | Path) -> str:
    """Name a bundle by the last two parts of its folder.

    Parameters
    ----------
    path : str or Path
        The bundle's folder, ``<repository>/<name>/<version>``.

    Returns
    -------
    str
        ``"<name>/<version>"``, or ``"bundle"`` when the path is empty.
    """
    parts = [part for part in Path(path).parts if part != Path(path).anchor]
    return "/".join(parts[-2:]) or "bundle"


class BundleCorrupt(ModelError):
    """A file of a bundle is missing, superfluous, altered or not a plain file.

    Parameters
    ----------
    path : str or Path
        The bundle's folder; only its last two parts are kept, as attribute `label`.
    file : str
        The file at fault, relative to the bundle.
    reason : str
        What is wrong and what to do about it.
    """

    def __init__(self, path: str | Path, file: str, reason: str) -> None:
        self.label, self.file, self.reason = bundle_label(path), file, reason
        super().__init__(self.label, file, reason)

    def __str__(self) -> str:
        return f"model {self.label}: file {self.file!r} {self.reason}"


class BundleInvalid(ModelError):
    """The files of a bundle are intact, but what they say cannot be used.

    Parameters
    ----------
    path : str or Path
        The bundle's folder; only its last two parts are kept, as attribute `label`. Empty if there is none
        yet.
    field : str
        The field of ``bundle.json`` at fault, dotted, or the name of a file.
    reason : str
        What is wrong and what to do about it.
    """

    def __init__(self, path: str | Path, field: str, reason: str) -> None:
        self.label, self.field, self.reason = bundle_label(path), field, reason
        super().__init__(self.label, field, reason)

    def __str__(self) -> str:
        return f"model {self.label}: {self.field}: {self.reason}"


class ModelNotFound(ModelError):
    """The repository has no such model or version.

    Parameters
    ----------
    name : str
        The name that was asked for.
    version : int or None
        The version that was asked for; None stands for the newest.
    available : sequence of str
        What there is, as ``"<name>/<version>"``.
    """

    def __init__(self, name: str, version: int | None, available: Sequence[str]) -> None:
        self.name, self.version, self.available = name, version, tuple(available)
        super().__init__(name, version, self.available)

    def __str__(self) -> str:
        wanted = f"{self.name[:64]!r}" + ("" if self.version is None else f" version {self.version}")
        return f"no model {wanted}; available: {', '.join(self.available) or 'none'}"


class LayerNotFound(ModelError):
    """The network has no such layer.

    Parameters
    ----------
    layer : str
        The name that was asked for.
    valid : sequence of str
        Every layer's name, in order of execution.
    """

    def __init__(self, layer: str, valid: Sequence[str]) -> None:
        self.layer, self.valid = layer, tuple(valid)
        super().__init__(layer, self.valid)

    def __str__(self) -> str:
        return f"no layer {self.layer[:128]!r}; valid layers: {', '.join(self.valid)}"


class ExportFailed(ModelError):
    """The network could not be written as ONNX, or the written one computes something else.

    Parameters
    ----------
    reason : str
        What failed, with the figures.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"ONNX export failed: {self.reason}"


class SourceUnusable(ModelError):
    """What somebody gave for a bundle to be made of cannot be used.

    Parameters
    ----------
    name : str
        Of the file or folder, without the one that it lies in.
    reason : str
        What is wrong and what to do about it.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(name, reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class OnnxUnreadable(SourceUnusable):
    """A model file is damaged, beyond the bounds, or no network of one volume."""


class ImageUnusable(SourceUnusable):
    """An image that was given with a model cannot be used."""


class MonaiBundleUnusable(SourceUnusable):
    """A folder is no MONAI bundle, or its network cannot be made."""


class OnnxUnsupported(ModelError):
    """An ONNX model holds what cannot be translated.

    Parameters
    ----------
    problems : sequence of str
        Every one that was found, each with its node and operator where there is one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "the ONNX model cannot be translated: " + "; ".join(self.problems)
