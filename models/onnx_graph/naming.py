"""What the layers of an imported network are called: the ONNX names of the values that they compute.

A name is kept as it is wherever PyTorch can call a module so; ``/`` and ``:`` may stand in it, and ``.``
makes one module a part of another, as everywhere in PyTorch. Else it is changed, always in the same way:

- A letter that is not of `models.onnx_graph.written.LAYER_NAME` becomes ``_``. Names end up in the code that
  torch.fx writes, so that no quotation mark may be among them.
- Of more than 32 parts between dots, those from the 32nd on are one, its dots ``_``.
- An empty part between two dots becomes ``_``.
- A part gets a ``_`` at its end if it is a word of Python's, an attribute that torch's modules have, or ends
  in ``:pad``, which names the padding before a layer.
- A name gets as many ``_`` at its end as it takes to be another one than those before it, and not the
  beginning of one of them (``a`` beside ``a.b`` becomes ``a_``).

Padding that a module of torch does not know is a layer of its own, ``<value>:pad``: the layer behind it then
is torch's own module, which receptive fields and the optimizer's fast routines know.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from functools import cache

from torch import fx, nn

from models.onnx_graph.graph import MAX_PARTS

PADDING = ":pad"
_STRANGE = re.compile(r"[^A-Za-z0-9_/:+@#$=<>,\[\]()-]")


@cache
def _reserved() -> frozenset[str]:
    traced = fx.GraphModule(nn.Module(), fx.Graph())
    return frozenset([*dir(traced), *dir(nn.Module()), *keyword.kwlist])


def _part(part: str) -> str:
    part = _STRANGE.sub("_", part) or "_"
    return part + "_" if part in _reserved() or part.endswith(PADDING) else part


def layer_names(values: Sequence[str]) -> dict[str, str]:
    """Name the layers that compute values.

    Parameters
    ----------
    values : sequence of str
        ONNX names, each once, in order of execution.

    Returns
    -------
    dict of str to str
        For each value a name that a module can have beside the others.
    """
    plain = {value: ".".join(_part(part) for part in value.split(".", MAX_PARTS - 1)) for value in values}
    insides = {name[:end] for name in plain.values() for end, letter in enumerate(name) if letter == "."}
    taken: set[str] = set()
    for value, name in plain.items():
        while name in taken or name in insides:
            name += "_"
        plain[value] = name
        taken.add(name)
    return plain
