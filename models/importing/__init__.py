"""Bundles out of networks that were trained elsewhere: ONNX models, torch modules, MONAI bundles."""

from models.importing.facts import Facts
from models.importing.module import export_bundle
from models.importing.monai import import_monai
from models.importing.network import import_onnx

__all__ = ["Facts", "export_bundle", "import_monai", "import_onnx"]
