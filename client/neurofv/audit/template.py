"""A plan to begin with."""

import textwrap

import yaml

from neurofv.recommended import PLAUSIBLE, PLAUSIBLE_STEPS
from neurofv.v1 import model_service_pb2 as pb

_CHANNELS = 8
_PLAN = """\
# The audit of {name}/{version}. Run it with: neurofv audit run FILE --server HOST:PORT --out DIRECTORY
audit: 1                        # version of this file's form
model: {name}/{version}

# What is visualized: classes, and channels of layers (`neurofv layers {name}` lists them).
units:
{units}
# How: names, each with choices of Client.visualize (docs/how-to/choose-a-method.md). What only classes know,
# such as contrast, passes channels over.
strategies:
  default: {{}}                   # drives units hardest
{readable}
seeds: [0, 1]                   # two at least: what they do not share is chance; three tell more

controls:
  random_weights: true          # the same pictures of the network with its weights shuffled
  real_images: false            # activations beside real images' of the class; needs images with classes

# Real images in the model's space, beside this file: a folder for each class, or a BIDS folder with the
# column of participants.tsv that names the classes.
# images: images
# labels: diagnosis
# probes: true                  # show images with added nuisances, to find shortcuts; needs images

# batch: 8                      # most pictures of one job

# Exit code 1 if one of these does not hold.
thresholds:
  seed_agreement: 0.1           # least correlation of a unit's pictures between seeds
  # above_random: 0.0           # least lead over the random network in agreement, selectivity and transfer
  # shortcuts: 0                # most kinds of shortcut that may be found; needs probes
"""
_READABLE = """\
  readable:                     # fewer, smoother changes that set a class apart; see docs/study.md
    steps: {steps}
{choices}"""


def template(model: pb.Model) -> str:
    """Write a plan for a model: all classes, a few channels of the last convolution, all controls at hand.

    Parameters
    ----------
    model : Model
        Whose audit it is.

    Returns
    -------
    str
        YAML with comments.
    """
    lines = ["  - classes: all"] if model.classes else []
    layer = _last_convolution(model)
    if layer is not None:
        few = ", ".join(map(str, range(min(_CHANNELS, layer.channels))))
        lines += [
            f"  - layer: {_scalar(layer.name)}",
            f"    channels: [{few}]  # of {layer.channels}; or: all",
        ]
    readable = ""
    if model.classes:
        choices = yaml.safe_dump(PLAUSIBLE, sort_keys=False, default_flow_style=None)
        readable = _READABLE.format(steps=PLAUSIBLE_STEPS, choices=textwrap.indent(choices, " " * 4))
    return _PLAN.format(
        name=model.name,
        version=model.version,
        units="\n".join([*lines, ""]),
        readable=readable,
    )


def _scalar(text: str) -> str:
    """Write a text so that YAML reads it as text: an exported network may call a layer 42."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10_000).strip()[1:-1]


def _last_convolution(model: pb.Model) -> pb.Layer | None:
    """Return the last layer in front of the classifier that has a map: where the largest patterns are."""
    before = [layer for layer in model.layers if layer.name != model.classifier_layer]
    with_map = [layer for layer in before if len(layer.output_shape) == 3 and max(layer.output_shape) > 1]
    convolutions = [layer for layer in with_map if "conv" in layer.type.lower()]
    found = convolutions or with_map
    return found[-1] if found else None
