"""docs/reference/errors.md, row by row: each failure is brought about, and is what the table says."""

import os
import re
import resource
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from models import ZOO
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import model_service_pb2 as models_pb
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import OutOfMemory
from service.status import reason_of, to_status
from tests.server import RunningServer, make_repository
from tests.service.requests import CUBE, SMALL, failure, request
from tests.service.security.authorities import TOKENS, bearer, write_tokens

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
ROW = re.compile(r"\| `(\w+)` \| `(\w+)` \| .* \| (no|after [\d.]+ s) \|")
TINY = (
    'objective { terms { channel { layer: "blocks.0.conv" channel: 2 } } }',
    "canvas { size_mm { i: 24 j: 24 k: 24 } } snapshot_every: 0 steps: 2",
)
LONG = (CUBE, SMALL, "steps: 5000 snapshot_every: 0")
MANY = 10**9


def _rows() -> dict[str, tuple[str, str]]:
    found = {reason: (code, again) for code, reason, again in ROW.findall(PAGE.read_text())}
    assert len(found) > 25
    return found


class Provoked:
    """A server whose limits are narrow, and what brings each failure about."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.metadata = bearer(TOKENS["admin"])

    def visualize(self, *parts: str, model: str = "lesion-shapes", **fields: object) -> None:
        asked = request(*parts, model=model)
        for name, value in fields.items():
            setattr(asked, name, value)
        list(self.server.visualization.Visualize(asked, metadata=self.metadata, timeout=120))

    def create(self, *parts: str) -> str:
        asked = pb.CreateJobRequest(request=request(*parts))
        return self.server.jobs.CreateJob(asked, metadata=self.metadata, timeout=60).job.name

    def get(self, name: str) -> pb.Job:
        return self.server.jobs.GetJob(pb.GetJobRequest(name=name), metadata=self.metadata, timeout=60).job

    def cancel(self, name: str) -> None:
        self.server.jobs.CancelJob(pb.CancelJobRequest(name=name), metadata=self.metadata, timeout=60)

    def wait(self, name: str) -> None:
        end = time.monotonic() + 60
        while not self.get(name).HasField("end_time"):
            assert time.monotonic() < end
            time.sleep(0.02)

    def done(self) -> str:
        name = self.create(*TINY)
        self.wait(name)
        return name

    def as_who(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.server.jobs.CreateJob(pb.CreateJobRequest(request=request(*TINY)), metadata=metadata, timeout=60)

    # One for each row that is not a single call.

    def unusable_subject(self) -> None:
        asked = request(CUBE, SMALL, "steps: 1 start { subject {} }")
        asked.subject.nifti = b"not a brain"
        list(self.server.visualization.Visualize(asked, metadata=self.metadata, timeout=60))

    def full_queue(self) -> None:
        held = [self.create(*LONG) for _ in range(3)]
        try:
            self.create(*LONG)
        finally:
            for name in held[::-1]:
                self.cancel(name)
                self.wait(name)

    def quota(self) -> None:
        self.create(CUBE, "steps: 9000 canvas { size_mm {} }")

    def reused_id(self) -> None:
        mark = 'request_id: "once"'
        self.wait(self.create(*TINY, mark))
        self.create(*TINY, mark, "seed: 1")

    def unfinished(self) -> None:
        name = self.create(*LONG)
        try:
            self.server.jobs.DeleteJob(pb.DeleteJobRequest(name=name), metadata=self.metadata, timeout=60)
        finally:
            self.cancel(name)
            self.wait(name)

    def no_volume(self) -> None:
        asked = pb.ReadVolumeRequest(name=self.done(), volume="other")
        list(self.server.jobs.ReadVolume(asked, metadata=self.metadata, timeout=60))

    def behind_the_end(self) -> None:
        asked = pb.WatchJobRequest(name=self.done(), after_sequence=MANY)
        list(self.server.jobs.WatchJob(asked, metadata=self.metadata, timeout=60))

    def expired(self) -> None:
        name = self.done()
        with sqlite3.connect(self.folder / "jobs.sqlite3", timeout=30) as database:
            database.execute("UPDATE job SET expires = 1 WHERE id = ?", [name.removeprefix("jobs/")])
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self.get(name)
            time.sleep(0.05)

    def no_worker(self) -> None:
        for pid in self.server.workers():
            os.kill(pid, signal.SIGKILL)
        asked = vis.EstimateRequest(request=request(*TINY))
        self.server.visualization.Estimate(asked, metadata=self.metadata, timeout=60)

    def deaths(self) -> None:
        asked = request(*LONG)
        for event in self.server.visualization.Visualize(asked, metadata=self.metadata, timeout=120):
            if event.progress.step and self.server.workers():
                os.kill(self.server.workers()[0], signal.SIGKILL)

    def locked(self) -> None:
        holder = sqlite3.connect(self.folder / "jobs.sqlite3", isolation_level=None, timeout=30)
        holder.execute("BEGIN IMMEDIATE")
        try:
            self.create(*TINY)
        finally:
            holder.execute("ROLLBACK")
            holder.close()

    def full_disk(self) -> None:
        pid = self.server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (16, before[1]))
        try:
            self.create(*TINY)
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def changed_model(self) -> None:
        """Exchange the model of a job that is at hand before the server starts again."""
        _, name = self.drained
        repository = self.folder / "own"
        shutil.rmtree(repository / "lesion-shapes")
        shutil.copytree(ZOO / "lesion-shapes-robust" / "1", repository / "lesion-shapes-robust" / "1")
        second = RunningServer(repository, threads=1, data=self.folder / "data")
        try:
            list(second.jobs.WatchJob(pb.WatchJobRequest(name=name), timeout=60))
        finally:
            second.process.kill()

    def dead_unit(self) -> None:
        self.visualize(UNIT % ("blocks.1.conv", 4), SMALL, "steps: 30", model="lifeless")

    def drain(self) -> None:
        raise self.drained[0]

    @cached_property
    def drained(self) -> tuple[grpc.RpcError, str]:
        """Drain a server with a job at hand; return what its caller was told, and the job's name."""
        repository = self.folder / "own"
        shutil.copytree(ZOO / "lesion-shapes" / "1", repository / "lesion-shapes" / "1")
        server = RunningServer(repository, threads=1, data=self.folder / "data")
        call = server.visualization.Visualize(request(*LONG), timeout=120)
        name = next(call).accepted.job
        next(event for event in call if event.progress.step == 1)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        stopping.join()
        return caught.value, name


@pytest.fixture(scope="module")
def provoked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provoked]:
    folder = tmp_path_factory.mktemp("provoked")
    past = datetime.now(UTC) - timedelta(days=1)
    tokens = write_tokens(folder / "tokens.toml", late=("late", "admin", past))
    server = RunningServer(
        make_repository(folder / "zoo"),
        threads=1,
        data=folder / "jobs",
        tokens=tokens,
        queue_length=2,
        caller_voxel_steps=MANY,
        sweep_seconds=0.2,
    )
    yield Provoked(server, folder / "jobs")
    server.process.kill()


UNIT = 'objective { terms { channel { layer: "%s" channel: %d } } }'
DIVERGES = "steps: 1 regularization { regularizers { l2 { weight: 1e300 } } } start { noise {} }"
PROVOKE: dict[str, Callable[[Provoked], object]] = {
    "INVALID_FIELD": lambda p: p.visualize(CUBE, "steps: -5"),
    "VOLUME_TOO_LARGE": lambda p: p.visualize(CUBE, "canvas { size_mm { i: 5000 j: 50 k: 50 } }"),
    "SUBJECT_UNUSABLE": Provoked.unusable_subject,
    "MODEL_NOT_FOUND": lambda p: p.visualize(CUBE, model="nobody"),
    "LAYER_NOT_FOUND": lambda p: p.visualize(UNIT % ("nowhere", 0)),
    "CLASS_NOT_FOUND": lambda p: p.visualize(CUBE.replace("cube", "face")),
    "UNIT_OUT_OF_RANGE": lambda p: p.visualize(UNIT % ("blocks.0.conv", 10_000)),
    "ARTIFACT_CORRUPT": lambda p: p.server.models.GetModel(
        models_pb.GetModelRequest(name="lesion-shapes", version=2), metadata=p.metadata
    ),
    "OPTIMISATION_DIVERGED": lambda p: p.visualize(CUBE, SMALL, DIVERGES),
    "UNIT_DEAD": Provoked.dead_unit,
    "QUEUE_FULL": Provoked.full_queue,
    "QUOTA_EXCEEDED": Provoked.quota,
    "SERVER_DRAINING": Provoked.drain,
    "WORKER_LOST": Provoked.no_worker,
    "ATTEMPTS_EXHAUSTED": Provoked.deaths,
    "MODEL_CHANGED": Provoked.changed_model,
    "JOB_NOT_FOUND": lambda p: p.get(f"jobs/{'0' * 32}"),
    "VOLUME_NOT_FOUND": Provoked.no_volume,
    "ARTIFACT_EXPIRED": Provoked.expired,
    "JOB_NOT_FINISHED": Provoked.unfinished,
    "REQUEST_ID_REUSED": Provoked.reused_id,
    "SEQUENCE_OUT_OF_RANGE": Provoked.behind_the_end,
    "STORAGE_FULL": Provoked.full_disk,
    "STORAGE_BUSY": Provoked.locked,
    "CREDENTIAL_INVALID": lambda p: p.as_who(bearer("nfv_wrong")),
    "TOKEN_EXPIRED": lambda p: p.as_who(bearer("late")),
    "METHOD_UNIMPLEMENTED": lambda p: health_pb2_grpc.HealthStub(p.server.channel).List(
        health_pb2.HealthListRequest(), metadata=p.metadata
    ),
    "ROLE_REQUIRED": lambda p: p.as_who(bearer(TOKENS["viewer"])),
}
FACTS = {"ATTEMPTS_EXHAUSTED": {"attempts": "3"}, "QUEUE_FULL": {"limit": "2"}}
# What no test may bring about for real: the machine's memory used up, and a fault of the server's own.
DESCRIBED = {OutOfMemory.reason: MemoryError(), "INTERNAL": RuntimeError("a fault")}


def test_the_table_and_this_test_name_the_same_failures() -> None:
    assert _rows().keys() == PROVOKE.keys() | DESCRIBED.keys()


@pytest.mark.parametrize("reason", PROVOKE)
def test_a_failure_is_what_its_row_says(provoked: Provoked, reason: str) -> None:
    code, again = _rows()[reason]
    with pytest.raises(grpc.RpcError) as caught:
        PROVOKE[reason](provoked)
    assert failure(caught.value)[:2] == (grpc.StatusCode[code], reason)
    assert FACTS.get(reason, {}).items() <= failure(caught.value)[2].items()
    details = str(rpc_status.from_call(caught.value))
    assert ("RetryInfo" in details) == (again != "no")
    # The server is none the worse.
    provoked.done()


@pytest.mark.parametrize("reason", DESCRIBED)
def test_a_failure_that_cannot_be_brought_about_is_described_so(reason: str) -> None:
    status = to_status(DESCRIBED[reason])
    assert reason_of(status) == reason
    assert grpc.StatusCode[_rows()[reason][0]].value[0] == status.code
