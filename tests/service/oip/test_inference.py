"""Who waits for a network: turns, leavers, a full queue, a server that shuts down."""

import asyncio
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from models import ZOO, read_bundle
from neurofv.audit_log import read_lines
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import Draining, QueueFull, WorkerLost
from service.jobs.probe import Probe
from service.oip import open_inference_pb2 as oip
from service.oip.inference import Inference
from service.oip.tensors import LOGITS, PROBABILITIES, add_output
from service.rpc import visualization
from tests.house import House


class Network:
    """An executor that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = 0
        self.go_on = asyncio.Event()
        self.lost, self.ready = False, True

    async def infer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        await self._answer(request.id)
        answer = oip.ModelInferResponse()
        for name in (LOGITS, PROBABILITIES):
            add_output(answer, name, (1, 2), f"{name}{request.id}".encode())
        return answer

    async def probe(self, request: vis.ProbeRequest, volume: bytes) -> vis.ProbeResponse:
        await self._answer(request.model)
        return vis.ProbeResponse(model=request.model)

    async def _answer(self, name: str) -> None:
        self.asked.append(name)
        self.at_once += 1
        assert self.at_once == 1
        try:
            await self.go_on.wait()
        finally:
            self.at_once -= 1
        if self.lost:
            raise WorkerLost("gone")


def _parts(*names: str) -> list[oip.ModelInferRequest]:
    return [oip.ModelInferRequest(id=name) for name in names]


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_volumes_of_several_callers_take_turns() -> None:
    network = Network()
    inference = Inference(network, lambda: False)  # type: ignore[arg-type]
    first = asyncio.create_task(inference.infer(_parts("a", "b", "c")))
    await _settle()
    second = asyncio.create_task(inference.infer(_parts("x")))
    await _settle()
    network.go_on.set()
    answer = await first
    assert list(answer.outputs[0].shape) == [3, 2]
    assert list(answer.raw_output_contents) == [
        b"logitsalogitsblogitsc",
        b"probabilitiesaprobabilitiesbprobabilitiesc",
    ]
    assert (await second).raw_output_contents[0] == b"logitsx"
    assert network.asked == ["a", "x", "b", "c"]


async def test_who_leaves_in_the_queue_is_never_shown() -> None:
    network = Network()
    inference = Inference(network, lambda: False)  # type: ignore[arg-type]
    first = asyncio.create_task(inference.infer(_parts("a", "b")))
    await _settle()
    second = asyncio.create_task(inference.infer(_parts("x")))
    third = asyncio.create_task(inference.infer(_parts("y")))
    await _settle()
    # One waits, and the other's first volume is in the worker, which must not be given another one before.
    second.cancel()
    first.cancel()
    await _settle()
    assert first.cancelled()
    assert second.cancelled()
    assert network.asked == ["a"]
    network.go_on.set()
    await third
    assert network.asked == ["a", "y"]


async def test_a_full_queue_and_a_drain_refuse() -> None:
    network, draining = Network(), False
    inference = Inference(network, lambda: draining)  # type: ignore[arg-type]

    async def ask(name: str) -> oip.ModelInferResponse:
        with inference.place():
            return await inference.infer(_parts(name))

    waiting = [asyncio.create_task(ask(str(number))) for number in range(64)]
    await _settle()
    with pytest.raises(QueueFull, match="64 requests wait"):
        await ask("one more")
    draining = True
    with pytest.raises(Draining):
        await ask("late")
    network.go_on.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    # What is in the worker is answered; who waits hears that the server shuts down.
    assert not isinstance(found[0], Exception)
    assert all(isinstance(answer, Draining) for answer in found[1:])
    assert network.asked == ["0"]


async def test_a_place_is_held_while_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many requests wait in memory as was said, and no act is recorded that is then refused."""
    bundle, go_on, read = read_bundle(ZOO / "growth" / "1"), threading.Event(), []

    def slow(request: vis.ProbeRequest, *_: object) -> Probe:
        assert go_on.wait(20)
        read.append(request.model)
        return Probe(request, bundle, np.zeros(1, np.float32))

    monkeypatch.setattr(visualization, "read_probe", slow)
    house, network = await House(tmp_path).open(), Network()
    network.go_on.set()
    inference = Inference(network, lambda: False)  # type: ignore[arg-type]
    service = visualization.VisualizationService(house.desk, house.metrics, inference)

    def ask(name: str) -> "asyncio.Task[vis.ProbeResponse]":
        return asyncio.create_task(service.Probe(vis.ProbeRequest(model=name), None))  # type: ignore[arg-type]

    waiting = [ask(str(number)) for number in range(64)]
    await _settle()
    waiting[63].cancel()  # whose image waits to be read
    with pytest.raises(QueueFull):
        await ask("one more")
    go_on.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [answer.model for answer in done[:63]] == [str(number) for number in range(63)]
    assert isinstance(done[63], asyncio.CancelledError)
    assert (await ask("later")).model == "later"
    assert read == [*map(str, range(64)), "later"]
    acts = [json.loads(line)["action"] for line in read_lines(tmp_path / "audit.jsonl")]
    assert acts.count("model.probe") == len(network.asked) == 64
    await house.close()


async def test_a_probe_takes_turns_with_volumes() -> None:
    network = Network()
    inference = Inference(network, lambda: False)  # type: ignore[arg-type]
    first = asyncio.create_task(inference.infer(_parts("a", "b")))
    await _settle()
    probe = asyncio.create_task(inference.probe(vis.ProbeRequest(model="p"), b"volume"))
    await _settle()
    network.go_on.set()
    assert (await probe).model == "p"
    await first
    assert network.asked == ["a", "p", "b"]


async def test_a_probe_waits_for_a_process_that_starts() -> None:
    network = Network()
    network.ready = False
    network.go_on.set()
    inference = Inference(network, lambda: False)  # type: ignore[arg-type]
    probe = asyncio.create_task(inference.probe(vis.ProbeRequest(model="p"), b""))
    await asyncio.sleep(0.3)
    assert network.asked == []
    network.ready = True
    assert (await probe).model == "p"


async def test_what_is_lost_while_the_server_ends_is_told_so() -> None:
    network, ending = Network(), asyncio.Event()
    network.lost = True
    inference = Inference(network, ending.is_set)  # type: ignore[arg-type]
    probe = asyncio.create_task(inference.probe(vis.ProbeRequest(model="p"), b""))
    await _settle()
    ending.set()
    network.go_on.set()
    with pytest.raises(Draining):
        await probe


async def test_a_lost_worker_frees_the_turn() -> None:
    network = Network()
    network.lost = True
    network.go_on.set()
    inference = Inference(network, lambda: False)  # type: ignore[arg-type]
    with pytest.raises(WorkerLost):
        await inference.infer(_parts("a"))
    network.lost = False
    assert await inference.infer(_parts("b"))
