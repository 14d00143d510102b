"""Who waits for a network's answer.

The forward pass runs in the worker, between two steps of the job that runs: there
the networks are loaded and the device is, a volume that takes all the memory costs
the worker and not the server, and nothing holds up the server's other calls. A
thread of the server would have none of that, and torch.fx, with which requests are
planned, changes every module of a process while it traces.
"""

import asyncio
from collections.abc import Callable

from service.errors import Draining, QueueFull
from service.jobs.dispatcher import Executor
from service.oip import open_inference_pb2 as oip
from service.oip.tensors import add_output

_MOST = 64


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

    def admit(self) -> None:
        """Make sure that another request can be taken.

        Raises
        ------
        Draining, QueueFull
            It cannot be taken now.
        """
        if self._is_draining():
            raise Draining
        if self._callers >= _MOST:
            raise QueueFull(f"{_MOST} requests wait for a network already; try again later", limit=_MOST)

    async def infer(self, parts: list[oip.ModelInferRequest]) -> oip.ModelInferResponse:
        """Show volumes to a network, one after the other; others' come in between.

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
        Draining, QueueFull, WorkerLost
            They cannot be shown now.
        JobFailed
            One of them cannot be shown at all, as this status says.
        """
        self.admit()
        self._callers += 1
        try:
            answers = [await self._next(part) for part in parts]
        finally:
            self._callers -= 1
        return _joined(answers)

    async def _next(self, part: oip.ModelInferRequest) -> oip.ModelInferResponse:
        """Wait for a turn and take it."""
        await self._turn.acquire()
        asking = asyncio.create_task(self._ask(part))
        asking.add_done_callback(self._pass_on)
        # Who leaves keeps the turn until the worker has answered: it never has more than one volume to hold.
        return await asyncio.shield(asking)

    async def _ask(self, part: oip.ModelInferRequest) -> oip.ModelInferResponse:
        if self._is_draining():
            raise Draining
        return await self._executor.infer(part)

    def _pass_on(self, asked: "asyncio.Task[oip.ModelInferResponse]") -> None:
        self._turn.release()
        if not asked.cancelled():
            asked.exception()  # of one who has left: nobody else looks at it


def _joined(answers: list[oip.ModelInferResponse]) -> oip.ModelInferResponse:
    """Lay the outputs of volumes upon each other."""
    whole = oip.ModelInferResponse()
    for index, output in enumerate(answers[0].outputs):
        shape = (len(answers), *output.shape[1:])
        add_output(
            whole, output.name, shape, b"".join(answer.raw_output_contents[index] for answer in answers)
        )
    return whole
