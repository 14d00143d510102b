"""Where the worker computes, and which numbers it can compute in there."""

import torch

import engine
from service.errors import InvalidField


def choose_device(name: str) -> torch.device:
    """Return the device of a setting; `auto` takes a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def check_precision(precision: engine.Precision, name: str) -> None:
    """Refuse numbers in which a device cannot compute.

    Parameters
    ----------
    precision : engine.Precision
        What a request asks for.
    name : str
        The device, as the setting names it.

    Raises
    ------
    InvalidField
        FLOAT16 on a CPU, or BFLOAT16 on one without instructions for it.
    """
    if choose_device(name).type != "cpu" or precision is engine.Precision.FLOAT32:
        return
    asked = f"is PRECISION_{precision.name}, "
    remedy = "; ask for PRECISION_{}, or send the request to a server with a GPU"
    if precision is engine.Precision.FLOAT16:
        rule = f"{asked}which needs a GPU, but this server computes on a CPU"
        raise InvalidField("precision", rule + remedy.format("BFLOAT16 or PRECISION_FLOAT32"))
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        rule = f"{asked}for which this server's CPU has no instructions"
        raise InvalidField("precision", rule + remedy.format("FLOAT32"))
