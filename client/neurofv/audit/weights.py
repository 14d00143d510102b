"""Weights that stay the same from an audit's first answer to its last."""

import grpc

from neurofv.errors import NeurofvError


def check_weights(name: str, expected: str, digest: str) -> None:
    """Make sure that an answer comes from the weights that are audited.

    Parameters
    ----------
    name : str
        The model, for people.
    expected : str
        Digest with which the audit began.
    digest : str
        What the answer says.

    Raises
    ------
    NeurofvError
        They are other weights.
    """
    if digest != expected:
        message = (
            f"{name}: its weights were replaced while it was audited (digest {expected[:12]}, now "
            f"{digest[:12]}); audit what is there now in another folder, or put the bundle back and go on"
        )
        raise NeurofvError(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_CHANGED", message)
