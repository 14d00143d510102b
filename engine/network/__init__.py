"""Networks as the optimizer runs them: cut at the target, folded, frozen."""

from engine.network.capture import UnknownLayer
from engine.network.prepared import Precision, Prepared, Reader, prepared
from engine.network.redirection import redirected

__all__ = ["Precision", "Prepared", "Reader", "UnknownLayer", "prepared", "redirected"]
