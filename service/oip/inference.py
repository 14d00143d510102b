"""Who waits for a network's answer: callers of ModelInfer and of Probe.

The forward pass runs in the worker, between two steps of the job that runs: there
the networks are loaded and the device is, a volume that takes all the memory costs
the worker and not the server, and nothing holds up the server's other calls. A
thread of the server would have none of that, and torch.fx, with which requests are
planned, changes every module of a process while it traces.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import Draining, QueueFull, WorkerLost
from service.jobs.dispatcher import Executor
from service.oip import open_inference_pb2 as oip
from service.oip.tensors import add_output

_MOST = 64
# For a process to start: right after the server, or after another's job has killed it.
_START_SECONDS = 60.0
_Answer = TypeVar("_Answer")


class Inference:
    """Shows volumes to networks, one at a time, whoever they are of.

    Parameters
    ----------
    executor : Executor
        Where networks are.
    is_draining : callable
        Whether the server shuts down.
    """

    def __init__(self, executor: Executor, is_draining: Callable[[], bool]) -> None:
        self._executor, self._is_draining = executor, is_draining
        self._turn = asyncio.Lock()
        self._callers = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a caller's place, from before its images are read until it is answered.

        Raises
        ------
        Draining, QueueFull
            Another request cannot be taken now.
        """
        if self._is_draining():
            raise Draining
        if self._callers >= _MOST:
            raise QueueFull(f"{_MOST} requests wait for a network already; try again later", limit=_MOST)
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1

    async def infer(self, parts: list[oip.ModelInferRequest]) -> oip.ModelInferResponse:
        """Show volumes to a network, one after the other; others' come in between. The caller has a place.

        Parameters
        ----------
        parts : list of ModelInferRequest
            Of one volume each.

        Returns
        -------
        ModelInferResponse
            Every output, of all volumes.

        Raises
        ------
        Draining, WorkerLost
            They cannot be shown now.
        JobFailed
            One of them cannot be shown at all, as this status says.
        """
        return _joined([await self._next(partial(self._executor.infer, part)) for part in parts])

    async def probe(self, request: vis.ProbeRequest, volume: bytes) -> vis.ProbeResponse:
        """Probe units with an image, as `infer` of one volume, but wait for a process that starts.

        Audits ask for many probes one after the other: they go on where a server was restarted.

        Parameters
        ----------
        request : ProbeRequest
            Checked, without its image.
        volume : bytes
            The image on the model's grid, model units, float32.
        """
        end = time.monotonic() + _START_SECONDS
        while not self._executor.ready and not self._is_draining() and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return await self._next(partial(self._executor.probe, request, volume))

    async def _next(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Wait for a turn and take it."""
        await self._turn.acquire()
        asking = asyncio.create_task(self._ask(ask))
        asking.add_done_callback(self._pass_on)
        # Who leaves keeps the turn until the worker has answered: it never has more than one volume to hold.
        return await asyncio.shield(asking)

    async def _ask(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        if self._is_draining():
            raise Draining
        try:
            return await ask()
        except WorkerLost:
            # Ended with the server, and not by what it was asked.
            if self._is_draining():
                raise Draining from None
            raise

    def _pass_on(self, asked: "asyncio.Task[_Answer]") -> None:
        self._turn.release()
        if not asked.cancelled():
            asked.exception()  # of one who has left: nobody else looks at it


async def read_whole(asked: Awaitable[_Answer]) -> _Answer:
    """Wait for a thread that reads a request; who leaves keeps the place until it is done with it."""
    reading = asyncio.ensure_future(asked)
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])
        raise


def _joined(answers: list[oip.ModelInferResponse]) -> oip.ModelInferResponse:
    """Lay the outputs of volumes upon each other."""
    whole = oip.ModelInferResponse()
    for index, output in enumerate(answers[0].outputs):
        shape = (len(answers), *output.shape[1:])
        add_output(
            whole, output.name, shape, b"".join(answer.raw_output_contents[index] for answer in answers)
        )
    return whole
