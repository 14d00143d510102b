"""Networks that end in labels: cut off before what has no gradient."""

from __future__ import annotations

from dataclasses import replace

import onnx

from models.onnx_graph.reading import Source

# What exporters write behind an ArgMax and what changes no label.
_BEHIND = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze"})


def before_labels(source: Source) -> Source:
    """Let a network that ends in ArgMax give what that reads.

    Parameters
    ----------
    source : Source
        What was read. It is left as found.

    Returns
    -------
    Source
        The same if it ends in anything else.
    """
    producers = {name: node for node in source.model.graph.node for name in node.output}
    node = producers.get(source.output_name)
    while node is not None and node.op_type in _BEHIND:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "ArgMax" or node.input[0] not in producers:
        return source
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    del model.graph.output[:]
    kind = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(kind)
    return replace(source, model=model, output_name=node.input[0])
