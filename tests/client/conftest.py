from __future__ import annotations

from collections.abc import Iterator

import pytest

import neurofv
from neurofv.v1 import model_service_pb2 as pb
from tests.client.running import MODEL
from tests.server import RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[neurofv.Client]:
    with neurofv.Client(server.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(server: RunningServer) -> pb.Model:
    with neurofv.Client(server.target) as opened:
        return opened.model(MODEL)
