"""Run an audit: from a plan and a server to a folder with a report."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neurofv.audit.exemplars import draw_exemplars, find_exemplars, rank_channels
from neurofv.audit.folder import Folder
from neurofv.audit.html import write_html
from neurofv.audit.images import RealImage, digest_of, examples, find_images
from neurofv.audit.jobs import Finding, Queue, patient
from neurofv.audit.plan import Plan, read_plan
from neurofv.audit.probing import Search
from neurofv.audit.progress import Meter, Progress
from neurofv.audit.report import Failure, make_report
from neurofv.audit.tasks import Task, check_layers, find_tasks, find_units
from neurofv.audit.transfers import Transfers, check_transfers, find_transfers, pinned
from neurofv.audit.weights import check_weights
from neurofv.client import Client
from neurofv.errors import InvalidRequest, NeurofvError
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

_JOB = re.compile(r"\bjobs/[0-9a-f]{32}\b")
PASSED, THRESHOLD_FAILED, COULD_NOT_RUN = 0, 1, 2
# One step that moves nothing: what comes back is the start, the model's reference brain.
_REFERENCE: dict[str, Any] = {
    "steps": 1,
    "start": {"reference_brain": {"deviation": 0.0}},
    "optimizer": {"sgd": {"learning_rate": 1e-9, "momentum": 0.0}},
    "transforms": {"jitter_mm": 0.0, "rotation_degrees": 0.0, "scale": 0.0},
    "regularizers": {},
    "snapshot_every": 0,
    "detach": True,
}


def run_audit(
    client: Client,
    plan: str | Path | Mapping[str, Any],
    out: str | Path,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> dict[str, Any]:
    """Audit a model, or go on with an audit that was interrupted.

    Parameters
    ----------
    client : Client
        The server that has the model.
    plan : str, Path or mapping
        A YAML file, or its content.
    out : str or Path
        The folder to fill; one that holds part of the same audit is completed.
    on_progress : callable, optional
        Given a `Progress` whenever something has happened.

    Returns
    -------
    dict
        The report, as `report.json` has it.

    Raises
    ------
    InvalidRequest
        The plan does not fit its form or the model, or the folder holds another audit.
    NeurofvError
        The server failed, or could not be reached for longer than the client's `reconnect_seconds`.
    OSError
        A file cannot be read or written.
    """
    read = read_plan(plan)
    name, version = read.model
    model = patient(client, lambda: client.model(name, version))
    check_layers(read, model)
    if read.content["probes"] and not model.classes:
        raise InvalidRequest("probes", True, "the model has no classes whose logits to look at; leave it out")
    images, transfers, folder = find_images(read, model), find_transfers(client, read), Folder(out)
    # Showing images takes long; who may not fill the folder is to know before.
    folder.take(read, model, digest_of(images) if _binds_images(read) else "", transfers)
    try:
        return _fill(client, read, model, folder, images, transfers, on_progress)
    finally:
        folder.release()


def _fill(
    client: Client,
    read: Plan,
    model: pb.Model,
    folder: Folder,
    images: Sequence[RealImage],
    transfers: Transfers,
    on_progress: Callable[[Progress], object],
) -> dict[str, Any]:
    """Fill a folder that was taken."""
    say = _teller(on_progress)
    # One image that does not serve would end the audit; that is to be known before pictures are made.
    units = find_units(read, model, rank_channels(client, read, model, images, say))
    begun = time.monotonic()
    driving = find_exemplars(client, model, units, images, say)
    seconds = (time.monotonic() - begun) / max(len(images), 1)
    search = Search(client, model, images) if read.content["probes"] else None
    folder.begin(read, model)
    code = COULD_NOT_RUN
    try:
        if not folder.has_reference():
            _fetch_reference(client, model, folder)
        tasks = find_tasks(read, units)
        meter = Meter(on_progress, tasks, sum(len(task.units) for task in tasks if folder.has(task)))
        if search is not None:
            meter.expect(search.probes, seconds)
        real = examples(images, model) if read.paths else {}
        failures = _make_pictures(client, read, model, folder, tasks, real, transfers, meter)
        exemplars = draw_exemplars(folder.path, driving)
        shortcuts = None if search is None else search.run(folder.path, meter)
        report = make_report(read, model, units, folder, images, exemplars, failures, shortcuts, transfers)
        folder.write_report(report)
        write_html(folder.path)
        code = PASSED if report["passed"] else THRESHOLD_FAILED
    finally:
        folder.end(code)
    return report


def _binds_images(plan: Plan) -> bool:
    """Say whether pictures depend on the real images: compared with them, or of channels ranked by them."""
    return plan.paths or any(group.top for group in plan.groups)


def _teller(on_progress: Callable[[Progress], object]) -> Callable[[str], None]:
    """Return what tells of work that is no picture; how far the whole is stays as it was told last."""

    def say(doing: str) -> None:
        on_progress(Progress(None, None, None, doing, None))

    return say


def _make_pictures(
    client: Client,
    plan: Plan,
    model: pb.Model,
    folder: Folder,
    tasks: list[Task],
    real: Mapping[str, Sequence[bytes]],
    transfers: Transfers,
    meter: Meter,
) -> list[Failure]:
    """Make what is not there yet; return what could not be made."""
    waiting = [task for task in tasks if not folder.has(task)]

    def request(task: Task) -> vis.VisualizeRequest:
        return pinned(task.request(plan, model, real), transfers.get(task.strategy))

    meter.estimate(client, waiting, request)
    meter.say("")
    failures = []
    queue = Queue(client, plan, model, folder, request, [each["digest"] for each in transfers.values()])
    for task, found in queue.run(waiting, meter.on_event):
        if isinstance(found, Finding):
            failures.append(Failure(task.keys[0], found.error.reason, _words(found.error)))
        else:
            check_transfers(client, [transfers[task.strategy]] if task.strategy in transfers else [])
            folder.save(task, found)
        meter.finish(task)
    return failures


def _fetch_reference(client: Client, model: pb.Model, folder: Folder) -> None:
    """Keep the brain that pictures are compared with."""
    if model.classes:
        unit: dict[str, Any] = {"class_name": model.classes[0]}
    else:
        unit = {"layer": model.layers[0].name, "channel": 0}
    request = {**_REFERENCE, **unit, "version": model.version}
    found = patient(client, lambda: client.visualize(model.name, **request))
    check_weights(f"{model.name}/{model.version}", model.digest, found.provenance.model_digest)
    folder.save_reference(found.volume)


def _words(error: NeurofvError) -> str:
    """Return a message without the name of the job, which each run has another of."""
    return _JOB.sub("the job", error.message)
