"""What a caller was promised, and whether it was kept."""

import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import grpc
from google.protobuf import text_format

from benchmarks.reliability.site import Site
from benchmarks.reliability.tiny import NAME
from benchmarks.reliability.watching import History, Watcher, read_again
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.dispatcher import ATTEMPTS
from service.security.audit import AuditLog

_TERM = 'terms {{ channel {{ layer: "blocks.{}.conv" channel: {} }} }}'
# What the jobs ask for: alone, with snapshots, as a batch, as samples; the last two may share a batch.
BODIES = (
    f"objective {{ {_TERM.format(0, 1)} }} steps: 120 snapshot_every: 15",
    f"objective {{ {_TERM.format(1, 0)} }} batch {{ {_TERM.format(1, 2)} }} steps: 80 snapshot_every: 40",
    f"objective {{ {_TERM.format(0, 0)} }} samples: 2 steps: 60 snapshot_every: 10 seed: 5",
    f"objective {{ {_TERM.format(1, 1)} }} steps: 90 snapshot_every: 0",
    f"objective {{ {_TERM.format(1, 3)} }} steps: 90 snapshot_every: 0",
)


def asked(body: str) -> vis.VisualizeRequest:
    """Read a request to the small model."""
    return text_format.Merge(body, vis.VisualizeRequest(model=NAME))


@dataclass
class Entry:
    """An acknowledged job."""

    name: str
    body: str
    watcher: Watcher
    wanted: vis.JobState | None = vis.JOB_STATE_SUCCEEDED
    deleted: bool = False


class Ledger:
    """Creates jobs, follows them, and knows what must have become of them.

    Parameters
    ----------
    site : Site
        Where they run.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.entries: list[Entry] = []
        self.reference: dict[str, dict[str, str]] = {}
        self.faults: list[str] = []
        # Creations without an answer: their jobs may exist or not.
        self.unanswered = 0

    def learn(self, bodies: Iterable[str]) -> None:
        """Note what uninterrupted runs give, one at a time."""
        for body in bodies:
            entry = self.create(body)
            entry.watcher.join(120)
            self.reference[body] = entry.watcher.history.results()
            assert self.reference[body], f"the uninterrupted run failed with {entry.watcher.end}"

    def create(self, body: str, again: bool = False) -> Entry:
        """Create a job until that is acknowledged; `again` sends the same once more afterwards."""
        request = asked(body)
        request.request_id = str(uuid.uuid4())
        wanted = jobs.CreateJobRequest(request=request)
        name = self.site.call(lambda server: server.jobs.CreateJob(wanted, timeout=60)).job.name
        if again:
            second = self.site.call(lambda server: server.jobs.CreateJob(wanted, timeout=60)).job.name
            if second != name:
                self.faults.append("a request_id gave two jobs")
        return self._follow(name, body)

    def create_once(self, body: str) -> Entry | None:
        """Create a job without request_id; without an answer nothing is promised."""
        try:
            return self.create_once_or_raise(body)
        except (grpc.RpcError, ValueError):
            self.unanswered += 1
            return None

    def create_once_or_raise(self, body: str) -> Entry:
        """Create a job without request_id; raise what the caller is told."""
        wanted = jobs.CreateJobRequest(request=asked(body))
        return self._follow(self.site.server.jobs.CreateJob(wanted, timeout=60).job.name, body)

    def _follow(self, name: str, body: str) -> Entry:
        entry = Entry(name, body, Watcher(self.site, name))
        entry.watcher.start()
        self.entries.append(entry)
        return entry

    def open(self) -> list[Entry]:
        """Return the jobs that have not ended."""
        return [entry for entry in self.entries if not entry.watcher.over.is_set()]

    def running(self) -> list[Entry]:
        """Return the jobs that a worker has, as far as was heard."""
        state = vis.JOB_STATE_RUNNING
        return [entry for entry in self.open() if entry.watcher.history.state == state]

    def at_last_attempt(self) -> bool:
        """Whether a kill now would be one too many for some job."""
        return any(entry.watcher.history.attempt >= ATTEMPTS for entry in self.running())

    def cancel(self, entry: Entry) -> None:
        """Cancel a job; it may have ended before."""
        entry.wanted = None
        wish = jobs.CancelJobRequest(name=entry.name)
        self.site.call(lambda server: server.jobs.CancelJob(wish, timeout=60))

    def delete(self, entry: Entry) -> None:
        """Delete an ended job."""
        entry.watcher.join(120)
        with suppress(grpc.RpcError):  # NOT_FOUND, if the first wish was granted and its answer lost
            self.site.call(
                lambda server: server.jobs.DeleteJob(jobs.DeleteJobRequest(name=entry.name), timeout=60)
            )
        entry.deleted = True

    def settle(self, seconds: float = 300) -> None:
        """Wait until every job has ended."""
        for entry in self.entries:
            entry.watcher.join(seconds)

    def check(self) -> dict[str, object]:
        """Compare every promise with what is there; `faults` must be empty."""
        counts: Counter[str] = Counter()
        for entry in self.entries:
            counts[self._check_one(entry)] += 1
        self._check_list()
        return {
            "jobs": len(self.entries),
            **{state.lower(): count for state, count in sorted(counts.items())},
            "reconnects": sum(entry.watcher.reconnects for entry in self.entries),
            "faults": self.faults,
        }

    def check_audit(self) -> int:
        """Verify the chain of a server that is down; return its records."""
        log = AuditLog(self.site.data / "audit.jsonl")
        log.close()
        return log.head[0]

    def _check_one(self, entry: Entry) -> str:
        """Return a job's state; note what is wrong with it."""
        watched = entry.watcher.history
        if not entry.watcher.over.is_set():
            return self._fault(entry, "it has not ended")
        if entry.deleted:
            _, code = read_again(self.site, entry.name)
            return "DELETED" if code == grpc.StatusCode.NOT_FOUND else self._fault(entry, f"deleted: {code}")
        fresh, code = read_again(self.site, entry.name)
        if watched.events != fresh.events or code != entry.watcher.end:
            self._fault(entry, "watched and read again differ")
        for history in (watched, fresh):
            self._check_history(entry, history)
        state = vis.JobState.Name(fresh.state).removeprefix("JOB_STATE_")
        if state == "FAILED" and self._reason(entry) == "ATTEMPTS_EXHAUSTED":
            return "ATTEMPTS_EXHAUSTED"
        if entry.wanted is not None and fresh.state != entry.wanted:
            self._fault(entry, f"it ended as {state}")
        return state

    def _check_history(self, entry: Entry, history: History) -> None:
        for fault in history.faults:
            self._fault(entry, fault)
        if history.steps != list(range(1, len(history.steps) + 1)):
            self._fault(entry, "steps are not told once each")
        if list(history.events) != list(range(1, len(history.events) + 1)):
            self._fault(entry, "the events have gaps")
        wanted = self.reference.get(entry.body)
        if history.state == vis.JOB_STATE_SUCCEEDED and wanted and history.results() != wanted:
            self._fault(entry, "its volumes are not those of an uninterrupted run")

    def _reason(self, entry: Entry) -> str:
        job = self.site.server.jobs.GetJob(jobs.GetJobRequest(name=entry.name), timeout=60).job
        return job.error.reason

    def _check_list(self) -> None:
        names: Counter[str] = Counter()
        token = ""
        while True:
            page = self.site.server.jobs.ListJobs(jobs.ListJobsRequest(page_token=token), timeout=60)
            names.update(job.name for job in page.jobs)
            if not (token := page.next_page_token):
                break
        ours = {entry.name for entry in self.entries if not entry.deleted}
        if lost := ours - set(names):
            self.faults.append(f"{len(lost)} acknowledged jobs are gone")
        if twice := [name for name, count in names.items() if count > 1]:
            self.faults.append(f"{len(twice)} jobs exist twice")
        if (more := len(set(names) - ours)) > self.unanswered:
            self.faults.append(f"{more} jobs were never asked for; {self.unanswered} had no answer")

    def _fault(self, entry: Entry, text: str) -> str:
        self.faults.append(f"{entry.name} ({entry.body}): {text}")
        return "FAULTY"


class Supervisor(threading.Thread):
    """Starts the server again whenever it is dead, as a service manager does.

    Parameters
    ----------
    site : Site
        What it looks after.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._site, self._done = site, threading.Event()
        # Settings of the next start.
        self.next: dict[str, object] = {}

    def run(self) -> None:
        """Look again and again."""
        while not self._done.wait(0.02):
            self._site.revive(**self.next)

    def dismiss(self) -> None:
        """End it."""
        self._done.set()
        self.join(180)
