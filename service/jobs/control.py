"""A request's control: the model without what it has learned."""

from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField


def control_seed(request: vis.VisualizeRequest | vis.ProbeRequest) -> int | None:
    """Return the seed with which the model's weights are shuffled, None for the model as it is.

    Parameters
    ----------
    request : VisualizeRequest or ProbeRequest
        Any that may name a control.

    Raises
    ------
    InvalidField
        It names a control of no kind.
    """
    if not request.HasField("control"):
        return None
    if request.control.WhichOneof("kind") is None:
        kinds = ", ".join(field.name for field in method_pb2.Control.DESCRIPTOR.oneofs_by_name["kind"].fields)
        raise InvalidField("control", f"names no kind; choose one of {kinds}, or leave it out")
    return request.control.random_weights.seed
