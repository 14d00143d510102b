"""Any order of creating, watching, cancelling, deleting and restarting keeps the promise.

Everything is real but the executor, which invents its results at once; the
real worker's part is shown by `test_kills.py`.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from benchmarks.reliability.quick import frames
from benchmarks.reliability.tiny import NAME, make_zoo
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ArtifactExpired, JobNotFinished, JobNotFound, RequestIdReused, SequenceOutOfRange
from service.jobs.job import JobFailed
from service.jobs.watch import Watch
from service.storage.records import Record
from tests.house import House
from tests.reliability.promise import Promise

_ZOO: list[Path] = []
_OVER = (vis.JOB_STATE_SUCCEEDED, vis.JOB_STATE_FAILED, vis.JOB_STATE_CANCELLED)


def _asked(body: int, request_id: str) -> vis.VisualizeRequest:
    text = f'objective {{ terms {{ channel {{ layer: "blocks.0.conv" channel: {body} }} }} }} steps: 4'
    return text_format.Merge(text, vis.VisualizeRequest(model=NAME, request_id=request_id, snapshot_every=0))


class Machine(RuleBasedStateMachine):
    """Does to a desk what callers, sweepers and power cuts do."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        # In memory, where there is such a folder: thousands of waits for a disk would show nothing more here.
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(prefix="neurofv-", dir=memory if memory.is_dir() else None))
        self.runner = asyncio.Runner()
        self.promise = Promise()
        self.house = House(self.root / "data", repository=_ZOO[0], retention_hours=0)
        (self.root / "data").mkdir()
        self.runner.run(self.house.open())

    def teardown(self) -> None:
        for name in list(self.promise.jobs):
            self.watch(name, 0)
        self.runner.run(self.house.close())
        self.runner.close()
        shutil.rmtree(self.root)

    @rule(
        target=names,
        body=st.integers(0, 2),
        pinned=st.booleans(),
        request_id=st.sampled_from(("", "", "a", "b", "c")),
    )
    def create(self, body: int, pinned: bool, request_id: str) -> object:
        known = self.promise.expected(request_id)
        try:
            record = self.runner.run(self.house.desk.create(_asked(body, request_id), pinned))
        except RequestIdReused:
            assert known is not None
            assert self.promise.jobs[known].asked != (body, pinned)
            return multiple()
        assert self.promise.create(record.name, (body, pinned), request_id)
        return record.name

    @rule(name=names, share=st.floats(0, 1))
    def watch(self, name: str, share: float) -> None:
        """Take a stream up behind any event that is known, and follow it to the end."""
        if not self._is_there(name):
            return
        job = self.promise.jobs[name]
        after = int(share * max(job.told, default=0))
        state = self.runner.run(asyncio.wait_for(self._watch(name, after), 20))
        if state == vis.JOB_STATE_UNSPECIFIED:
            assert job.ended is not None, "the stream ended, but the job has not"
            return  # its end lies before
        assert job.may_end_as(state)
        job.ended = state
        assert sorted(job.told) == list(range(1, len(job.told) + 1))

    async def _watch(self, name: str, after: int) -> "vis.JobState":
        record = await self.house.desk.find(name)
        job, state, last = self.promise.jobs[name], vis.JOB_STATE_UNSPECIFIED, after
        volume = b""
        try:
            async for event in Watch(self.house.desk, record, self.house.metrics).events(after):
                assert event.sequence in (last, last + 1)
                last = event.sequence
                volume += event.volume_chunk.data
                if event.WhichOneof("event") not in ("volume_chunk", "volume_end"):
                    assert job.hear(event.sequence, event.SerializeToString(deterministic=True))
                if event.state_changed.state in _OVER:
                    state = event.state_changed.state
        except JobFailed:
            state = vis.JOB_STATE_FAILED
        if volume:
            await self._compare(record, volume)
        return state

    async def _compare(self, record: Record, volume: bytes) -> None:
        """The volume is the one that an uninterrupted run gives."""
        request = await asyncio.to_thread(self.house.desk.store.request, record.number)
        frame = frames(record.number, request, 4)[0]
        assert frame.data.endswith(volume)
        assert len(frame.data) < len(volume) + 500

    @rule(name=names)
    def watch_behind_the_end(self, name: str) -> None:
        if self._is_there(name):
            with pytest.raises(SequenceOutOfRange):
                self.runner.run(self._watch(name, 10_000))

    @rule(name=names)
    def cancel(self, name: str) -> None:
        if self._is_there(name):
            self.promise.jobs[name].cancelled = True
            self.runner.run(self._act(name, self.house.desk.cancel))

    @rule(name=names)
    def delete(self, name: str) -> None:
        if not self._is_there(name):
            return
        try:
            self.runner.run(self._act(name, self.house.desk.delete))
        except JobNotFinished:
            # An end that was heard of is stored; deleting must then be possible.
            assert self.promise.jobs[name].ended is None
            return
        self.promise.remove(name, "deleted")

    @rule(name=names, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        if self._is_there(name):
            record = self.runner.run(self._act(name, lambda found: self.house.desk.pin(found, pinned)))
            assert record.pinned == pinned
            self.promise.jobs[name].pinned = pinned

    @rule()
    def sweep(self) -> None:
        """Whatever has ended and is not pinned goes; here its time is over at once."""
        for name in list(self.promise.jobs):
            self.watch(name, 0)
        self.runner.run(self.house.sweeper.sweep())
        for name, job in list(self.promise.jobs.items()):
            if not job.pinned:
                self.promise.remove(name, "expired")

    @rule(ticks=st.integers(1, 40))
    def work(self, ticks: int) -> None:
        """Let time pass."""

        async def wait() -> None:
            for _ in range(ticks):
                await asyncio.sleep(0.0005)

        self.runner.run(wait())

    @rule()
    def restart(self) -> None:
        self.runner.run(self.house.close())
        self.runner.run(self.house.open())

    @rule()
    def crash(self) -> None:
        for job in self.promise.jobs.values():
            job.crashes += 1
        self.runner.run(self.house.abandon())
        self.runner.run(self.house.open())

    @invariant()
    def nothing_is_lost_and_nothing_doubled(self) -> None:
        there = [record.name for record in self.house.desk.store.page("", [], "", 0, 1000)]
        assert sorted(there) == sorted(self.promise.jobs)

    def _is_there(self, name: str) -> bool:
        """Whether a job must be there; if not, it must be refused for the right reason."""
        if name in self.promise.jobs:
            return True
        reason = {"deleted": JobNotFound, "expired": ArtifactExpired}[self.promise.removed[name]]
        with pytest.raises(reason):
            self.runner.run(self.house.desk.find(name))
        return False

    async def _act(self, name: str, act: object) -> object:
        return await act(await self.house.desk.find(name))  # type: ignore[operator]


def test_every_order_of_acts_keeps_the_promise(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _ZOO[:] = [make_zoo(tmp_path_factory.mktemp("zoo") / "zoo")]
    chosen = settings(
        max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Machine, settings=chosen)
