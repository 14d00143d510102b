"""Networks that were read from ONNX.

`models.onnx_graph.translate` reads a model once and needs the package onnx; `models.onnx_graph.network`
builds the network from what a bundle keeps of it and needs torch alone.
"""

from models.onnx_graph.network import OnnxNetwork

__all__ = ["OnnxNetwork"]
