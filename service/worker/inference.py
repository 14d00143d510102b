"""A plain forward pass: a volume is shown to the network as its bundle has it."""

import numpy as np
import torch

from models.manifest import InputSpace
from models.statistics import watched
from service.errors import InvalidField
from service.oip import open_inference_pb2 as oip
from service.oip.tensors import FLOATS, LOGITS, NORMALIZED, OUTPUT, PROBABILITIES, add_output
from service.worker.model import LoadedModel


def infer(request: oip.ModelInferRequest, model: LoadedModel) -> oip.ModelInferResponse:
    """Show one volume to a network.

    Parameters
    ----------
    request : ModelInferRequest
        Of one volume in raw bytes, whose size was checked; `id` names its field for errors.
    model : LoadedModel
        The model that it names.

    Returns
    -------
    ModelInferResponse
        A classifier's logits and probabilities, or the output of another network.

    Raises
    ------
    InvalidField
        The numbers are none that the network can read.
    """
    space = model.bundle.manifest.input
    image = np.frombuffer(request.raw_input_contents[0], FLOATS).reshape(space.shape)
    volume = _in_model_units(image, space, request.parameters[NORMALIZED].bool_param, request.id)
    batch = torch.tensor(volume, dtype=torch.float32, device=model.device)[None, None]
    outputs = _outputs(batch, model)
    answer = oip.ModelInferResponse()
    for name, values in outputs.items():
        add_output(answer, name, values.shape, values.cpu().numpy().astype(FLOATS).tobytes())
    return answer


@torch.inference_mode()
def _outputs(batch: torch.Tensor, model: LoadedModel) -> dict[str, torch.Tensor]:
    # An imported classifier may end in a softmax; its logits are those of the layer before.
    layer = model.bundle.manifest.classifier_layer
    with watched(model.network.network, {layer}) as seen:
        output = model.network.network(batch).float()
    if not layer:
        return {OUTPUT: output.reshape(1, -1) if output.ndim < 2 else output}
    logits = seen[layer].float().flatten(1)
    return {LOGITS: logits, PROBABILITIES: model.probabilities(logits)}


def _in_model_units(image: np.ndarray, space: InputSpace, normalized: bool, field: str) -> np.ndarray:
    """Apply the bundle's normalization, unless the caller has."""
    # Numbers near the end of float32 leave it, which is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            volume = image if normalized else space.normalize(image)
        except ValueError as error:
            raise InvalidField(field, f"cannot be normalized: {error}") from None
    if not np.isfinite(volume).all():
        raise InvalidField(field, "holds numbers that are no finite float32 in model units; replace them")
    return volume
