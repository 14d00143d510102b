"""What is visualized: architectures, the bundle format, the repository of bundles and layer tables."""

from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.errors import (
    BundleCorrupt,
    BundleInvalid,
    ExportFailed,
    ImageUnusable,
    LayerNotFound,
    ModelError,
    ModelNotFound,
    MonaiBundleUnusable,
    OnnxUnreadable,
    OnnxUnsupported,
)
from models.layers import Layer, layer_table
from models.manifest import Manifest
from models.prior import Prior
from models.repository import Entry, Repository
from models.verifying import read_bundle
from models.writing import write_bundle

ZOO = Path(__file__).parent / "zoo"
"""Root of the repository of bundles that are shipped with the code."""

__all__ = [
    "ZOO",
    "Bundle",
    "BundleCorrupt",
    "BundleInvalid",
    "Entry",
    "ExportFailed",
    "ImageUnusable",
    "Layer",
    "LayerNotFound",
    "Manifest",
    "ModelError",
    "ModelNotFound",
    "MonaiBundleUnusable",
    "OnnxUnreadable",
    "OnnxUnsupported",
    "Prior",
    "Repository",
    "layer_table",
    "read_bundle",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Load what needs onnx when it is asked for: whoever only reads bundles does without."""
    if name != "export_bundle":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.importing import export_bundle

    return export_bundle
