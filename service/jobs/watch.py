"""A job's events, from any of them on, to whoever watches."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from google.rpc import status_pb2

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ArtifactCorrupt, Draining, JobNotFound, SequenceOutOfRange
from service.jobs.desk import Desk
from service.jobs.job import Job, JobFailed
from service.observability.metrics import Metrics
from service.storage import files
from service.storage.records import Record

# Events that are read from the database at once.
_PAGE = 256


class Watch:
    """One stream of a job's events; holds no more than a page of them and 1 MiB of a volume.

    Parameters
    ----------
    desk : Desk
        Who knows the jobs.
    record : Record
        The job.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, desk: Desk, record: Record, metrics: Metrics) -> None:
        self._desk, self._record, self._metrics = desk, record, metrics

    async def events(self, after: int) -> AsyncIterator[vis.VisualizeResponse]:
        """Yield the events behind one, those to come included, until the job has ended.

        Parameters
        ----------
        after : int
            The last event that is known whole; 0 for none.

        Raises
        ------
        SequenceOutOfRange
            There is no such event yet.
        JobFailed
            After the last event of a job that failed.
        Draining
            The server shuts down; the stream can be taken up again.
        """
        job = await self._begin(after)
        with self._metrics.watchers.track_inprogress():
            async for event in self._from(job, after):
                yield event
        error = job.status if job else self._error(await self._again())
        if error is not None:
            raise JobFailed(error)

    async def page(self, after: int, most: int, seconds: float) -> tuple[list[vis.VisualizeResponse], bool]:
        """Return the next events behind one, for who asks again and again; volumes without their bytes.

        Parameters
        ----------
        after : int
            The last event that is known; 0 for none.
        most : int
            Events at once.
        seconds : float
            How long to wait if there is none yet.

        Returns
        -------
        tuple of (list of VisualizeResponse, bool)
            The events, and whether they are the job's last.

        Raises
        ------
        SequenceOutOfRange, Draining
            As with `events`.
        """
        job = await self._begin(after)
        with self._metrics.watchers.track_inprogress():
            end = time.monotonic() + seconds
            while True:
                news = job.news if job else None
                over = job is None or job.over
                found = (await self._behind(job, after))[:most]
                if found or over or news is None:
                    return found, over and len(found) < most
                if self._desk.dispatcher.draining:
                    raise Draining
                try:
                    await asyncio.wait_for(news.wait(), end - time.monotonic())
                except TimeoutError:
                    return [], False

    async def _begin(self, after: int) -> Job | None:
        """Return the job if it is live, once it is known that it has had the event."""
        job = await self._live()
        last = job.committed if job else (await self._again()).last_sequence
        if after > last:
            rule = f"is {after}, but the job's newest event is {last}; watch from there"
            raise SequenceOutOfRange("after_sequence", rule, newest=last)
        return job

    async def _behind(self, job: Job | None, after: int) -> list[vis.VisualizeResponse]:
        """Return the committed events behind one, from memory or from the database."""
        found = job.after(after) if job else None
        if found is None:
            found = await self._desk.read(self._desk.store.events, self._record.number, after, _PAGE)
        return found

    async def _from(self, job: Job | None, after: int) -> AsyncIterator[vis.VisualizeResponse]:
        while True:
            # Before the events are read: what comes later wakes this watcher once more.
            news = job.news if job else None
            over = job is None or job.over
            found = await self._behind(job, after)
            for event in found:
                async for part in self._parts(job, event):
                    yield part
                after = event.sequence
            if not found and over:
                return
            if not found and news is not None:
                if self._desk.dispatcher.draining:
                    raise Draining
                await news.wait()

    async def _parts(
        self, job: Job | None, event: vis.VisualizeResponse
    ) -> AsyncIterator[vis.VisualizeResponse]:
        """Yield an event; of a volume its beginning, its pieces and its end."""
        if not event.HasField("volume_begin"):
            yield event
            return
        begin = event.volume_begin
        is_snapshot = begin.kind == vis.VOLUME_KIND_INTERMEDIATE
        if is_snapshot and job is not None and job.superseded(event):
            self._metrics.coalesced.inc()
            yield _skipped(event)
            return
        path, what = self._desk.store.files.volume(self._record.id, event.sequence), f"volume {begin.id}"
        blocks = files.blocks(path, begin.sha256, begin.bytes, what)
        try:
            block = await files.next_block(blocks)
        except ArtifactCorrupt:
            await self._again()
            if not is_snapshot:
                raise
            if path.exists():
                self._metrics.storage_faults.labels("corrupt").inc()
            # It has made room for newer ones, or a power failure took it: what follows is not lost with it.
            yield _skipped(event)
            return
        async for part in self._sent(event, block, blocks):
            yield part

    async def _sent(
        self, event: vis.VisualizeResponse, block: bytes | None, blocks: Iterator[bytes]
    ) -> AsyncIterator[vis.VisualizeResponse]:
        begin, offset = event.volume_begin, 0
        kind = vis.VolumeKind.Name(begin.kind).removeprefix("VOLUME_KIND_").lower()
        self._metrics.volumes_sent.labels(kind).inc()
        yield event
        while block:
            chunk = vis.VolumeChunk(id=begin.id, offset=offset, data=block)
            self._metrics.volume_bytes_sent.inc(len(block))
            yield vis.VisualizeResponse(sequence=event.sequence, time=event.time, volume_chunk=chunk)
            offset += len(block)
            block = await files.next_block(blocks) if offset < begin.bytes else None
        end = vis.VolumeEnd(id=begin.id)
        yield vis.VisualizeResponse(sequence=event.sequence, time=event.time, volume_end=end)

    async def _live(self) -> Job | None:
        """Return the job, or None if it has ended; one that is being taken up is not there for a moment."""
        while (job := self._desk.live(self._record)) is None and not (await self._again()).over:
            if self._desk.dispatcher.draining:
                raise Draining
            await asyncio.sleep(0.05)
        return job

    async def _again(self) -> Record:
        record = await self._desk.read(self._desk.store.get, self._record.id)
        if record is None:
            raise JobNotFound(self._record.name)
        return record

    @staticmethod
    def _error(record: Record) -> status_pb2.Status | None:
        return status_pb2.Status.FromString(record.error) if record.error else None


def _skipped(event: vis.VisualizeResponse) -> vis.VisualizeResponse:
    begin = event.volume_begin
    skipped = vis.VolumeSkipped(id=begin.id, step=begin.step, item=begin.item)
    return vis.VisualizeResponse(sequence=event.sequence, time=event.time, volume_skipped=skipped)
