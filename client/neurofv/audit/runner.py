"""Run an audit: from a plan and a server to a folder with a report."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neurofv.audit.exemplars import draw_exemplars, find_exemplars, rank_channels
from neurofv.audit.folder import REFERENCE, Folder
from neurofv.audit.html import write_html
from neurofv.audit.images import digest_of, examples, find_images
from neurofv.audit.jobs import Finding, Queue, patient
from neurofv.audit.plan import Plan, read_plan
from neurofv.audit.probing import search_shortcuts
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
    images = find_images(read, model)
    folder = Folder(out)
    transfers = find_transfers(client, read)
    folder.open(read, model, digest_of(images), transfers)
    code = COULD_NOT_RUN
    try:
        if not folder.has_reference():
            _fetch_reference(client, model, folder)
        say = _teller(on_progress)
        units = find_units(read, model, rank_channels(client, read, model, images, say))
        real = examples(images) if read.paths else {}
        tasks = find_tasks(read, units)
        failures = _make_pictures(client, read, model, folder, tasks, real, transfers, on_progress)
        exemplars = draw_exemplars(folder.path, find_exemplars(client, model, units, images, say))
        shortcuts = None
        if read.content["probes"]:
            shortcuts = search_shortcuts(client, model, images, folder.path / REFERENCE, say)
        report = make_report(read, model, units, folder, images, exemplars, failures, shortcuts, transfers)
        folder.write_report(report)
        write_html(folder.path)
        code = PASSED if report["passed"] else THRESHOLD_FAILED
    finally:
        folder.end(code)
    return report


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
    on_progress: Callable[[Progress], object],
) -> list[Failure]:
    """Make what is not there yet; return what could not be made."""
    waiting = [task for task in tasks if not folder.has(task)]
    there = sum(len(task.units) for task in tasks) - sum(len(task.units) for task in waiting)

    def request(task: Task) -> vis.VisualizeRequest:
        return pinned(task.request(plan, model, real), transfers.get(task.strategy))

    meter = Meter(on_progress, tasks, there)
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
