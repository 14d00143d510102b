"""Client of neurofv: see what a unit of a 3D CNN for brain MRI looks for."""

from neurofv.aio import AsyncClient
from neurofv.client import Client
from neurofv.errors import InvalidRequest, NeurofvError, StreamBroken, VolumeCorrupt
from neurofv.events import Event
from neurofv.requests import Choices, build_request
from neurofv.results import Visualization, read_request
from neurofv.volumes import Volume

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Choices",
    "Client",
    "Event",
    "InvalidRequest",
    "NeurofvError",
    "StreamBroken",
    "Visualization",
    "Volume",
    "VolumeCorrupt",
    "build_request",
    "read_request",
]
