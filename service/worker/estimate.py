"""What a job will cost, from a few steps of it on smaller canvases.

Time and memory grow almost in proportion to the voxels, but by how much hangs
on the network, the layers that are read, the method and the machine. So the
engine itself is run, and lines are laid through what was measured.
"""

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from statistics import median

import torch

import engine
from engine import evaluation as figures
from engine.memory import PeakMemory
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.images import without_images
from service.jobs.plan import Plan, layers_on
from service.settings import Settings
from service.volumes import nifti
from service.volumes.canvas import Box
from service.worker.fit import Fit, Lines, Sample
from service.worker.model import LoadedModel

# Edges of the cubes whose voxels the reduced canvases have. The first tells what a step costs however small
# it is. The others tell the memory: from about 60 on it grows by a line, for the first convolution is
# computed in parts of a fixed size. A GPU is not filled by a small volume.
_EDGES = {"cpu": (32, 64, 80), "cuda": (64, 128, 160)}
# Timed steps on each canvas, the last with a look.
_TIMED = 4
# So many of the copies in which a result's robustness is read are read here.
_READ = 2
# Files that most results have: the volume and its gradient.
_FILES = 2
# Steps split the heap of a CPU's process: it grows beyond what it holds, and does not shrink for the figures.
_SPLIT = 1.5
# Edge of the volumes that stand for samples on the whole grid. Fourier transforms of whole grids in float64
# take half as much again as torch knows of: 768 MB of the process where it tells 514.
_CUBE, _WORKSPACE = 40, 1.5
_KEPT = 256


@dataclass(frozen=True)
class Writing:
    """What volumes on a model's whole grid cost: a file, a spectrum, and to lay samples on each other."""

    file_seconds: float
    spectrum_bytes: int
    agreement_seconds: float
    agreement_bytes: int


class Estimator:
    """Estimates jobs, and remembers what it has measured.

    Parameters
    ----------
    settings : Settings
        The server's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fits: OrderedDict[tuple[object, ...], Fit] = OrderedDict()
        self._writings: dict[str, Writing] = {}

    def estimate(self, plan: Plan, model: LoadedModel) -> vis.EstimateResponse:
        """Estimate what a plan costs.

        Parameters
        ----------
        plan : Plan
            What is asked about.
        model : LoadedModel
            The model that the plan names.

        Returns
        -------
        EstimateResponse
            Complete but for the jobs that run and wait.

        Raises
        ------
        ServiceError, engine.Diverged
            What the job itself would raise within its first steps.
        """
        fit = self._fit(plan, model)
        if model.bundle.digest not in self._writings:
            self._writings[model.bundle.digest] = _measure_writing(plan, model)
        writing = self._writings[model.bundle.digest]
        volumes, voxels = len(plan.spec.items), plan.box.voxels
        return vis.EstimateResponse(
            request=without_images(plan.request),
            voxels=voxels,
            volumes=volumes,
            voxel_steps=voxels * volumes * plan.spec.steps,
            step_seconds=fit.at("step", voxels, volumes),
            seconds=_seconds(plan, fit, writing),
            peak_bytes=_peak_bytes(plan, model, fit, writing),
            device=str(model.device),
            threads=torch.get_num_threads(),
        )

    def _fit(self, plan: Plan, model: LoadedModel) -> Fit:
        """Measure, unless it was done before."""
        shapes = _shapes(plan, model.device)
        key = (model.bundle.digest, tuple(shapes), *_kind(plan))
        if key not in self._fits:
            one = two = Lines([self._sample(plan, model, shape, 1) for shape in shapes])
            if len(plan.spec.items) > 1:
                two = Lines([self._sample(plan, model, shape, 2) for shape in shapes])
            self._fits[key] = Fit(one, two)
            while len(self._fits) > _KEPT:
                self._fits.popitem(last=False)
        self._fits.move_to_end(key)
        return self._fits[key]

    def _sample(self, plan: Plan, model: LoadedModel, shape: tuple[int, int, int], volumes: int) -> Sample:
        """Run some steps of the first volumes of a plan on a smaller canvas."""
        small = _on(plan, model, shape, volumes)
        spec = replace(small.spec, anatomy=model.anatomy(small, self._settings))
        stepping, reading = PeakMemory(model.device), PeakMemory(model.device)
        events = engine.visualize(model.network, spec)
        with stepping:
            # The second step has the optimizer's state beside it.
            next(events), next(events)
        *seconds, last = [event.seconds for event in events if isinstance(event, engine.Progress)]
        step = median(seconds)
        with reading:
            _read_copies(model, spec)
        begin = time.perf_counter()
        _read_copies(model, spec)
        took = time.perf_counter() - begin
        times = step, max(last - step, 0.0), took / _READ
        return Sample(math.prod(shape), *times, stepping.peak, stepping.left, reading.peak // _READ)


def _shapes(plan: Plan, device: torch.device) -> list[tuple[int, int, int]]:
    """Return the canvases to measure on, by size: the plan's own if that is small."""
    edges = _EDGES[device.type]
    copies = plan.spec.transforms.copies
    if plan.box.voxels * copies <= edges[-1] ** 3:
        return [plan.box.shape]
    shapes = [_reduced(plan, edge**3 / copies) for edge in edges]
    found = sorted({shape for shape in shapes if shape is not None}, key=math.prod)
    return found or [plan.box.shape]


def _reduced(plan: Plan, voxels: float) -> tuple[int, int, int] | None:
    """Return a canvas of about so many voxels and the plan's proportions, or a larger one."""
    while voxels < plan.box.voxels:
        scale = (voxels / plan.box.voxels) ** (1 / 3)
        # Poolings leave no remainder of a multiple of 8.
        i, j, k = (min(max(round(edge * scale / 8) * 8, 8), edge) for edge in plan.box.shape)
        # Some networks read no small volume, and some only the whole grid.
        if layers_on(plan.bundle, (i, j, k)) is not None:
            return i, j, k
        voxels *= 2
    return None


def _on(plan: Plan, model: LoadedModel, shape: tuple[int, int, int], volumes: int) -> Plan:
    """Return a short plan of the same kind on the middle of the canvas."""
    corner = zip(plan.box.start, plan.box.shape, shape, strict=True)
    i, j, k = (start + (whole - edge) // 2 for start, whole, edge in corner)
    box, spec = Box((i, j, k), shape), plan.spec
    items = [replace(item, objective=_anywhere(item.objective)) for item in spec.items[:volumes]]
    # Without a control's spreads: to measure them takes long, and they change no cost.
    items = [replace(item, objective=model.with_subject(plan, item.objective, box)) for item in items]
    steps = 2 + _TIMED
    small = replace(
        spec,
        grid=replace(spec.grid, shape=shape),
        objective=items[0].objective,
        batch=tuple(items[1:]),
        stopping=engine.Stopping(look_every=steps),
        steps=steps,
        snapshot_every=0,
    )
    return replace(plan, box=box, spec=small)


def _anywhere(objective: engine.Objective) -> engine.Objective:
    """Return an objective without positions, which a smaller canvas may not hold; they cost nothing."""
    terms = []
    for term in objective.terms:
        unit = term.unit
        if isinstance(unit, engine.Neuron | engine.Direction):
            unit = replace(unit, position=None)
        terms.append(replace(term, unit=unit))
    return replace(objective, terms=tuple(terms))


def _kind(plan: Plan) -> tuple[object, ...]:
    """Return what the cost hangs on, but for the canvas and the number of volumes."""
    method, spec = vis.VisualizeRequest(), plan.spec
    for name in ("parameterization", "start", "transforms", "regularization", "optimizer"):
        getattr(method, name).CopyFrom(getattr(plan.request, name))
    units = tuple(tuple(type(term.unit).__name__ for term in item.objective.terms) for item in spec.items[:2])
    return (
        method.SerializeToString(deterministic=True),
        spec.precision,
        tuple(sorted(spec.layers)),
        spec.objective.behind_nonlinearities,
        units,
        # A control may fail where the model does not; one costs what another does.
        plan.control is not None,
    )


def _read_copies(model: LoadedModel, spec: engine.Spec) -> None:
    """Read transformed copies of the reference, as a result's robustness is read."""
    image = spec.anatomy.need("reference", "an estimate").to(model.device)
    objective, bounds = spec.objective, spec.intensity_range
    figures.held_out(model.network, objective, image, spec.grid, bounds, count=_READ).tolist()


def _measure_writing(plan: Plan, model: LoadedModel) -> Writing:
    """Write the reference as if it were a result, and look at its spectrum."""
    whole = torch.from_numpy(model.background)
    source = nifti.Source(model.bundle.manifest, "estimate", vis.VOLUME_KIND_FINAL, 1, 0, None)
    begin = time.perf_counter()
    file = nifti.encode(model.background, source)
    file_seconds = time.perf_counter() - begin
    space, prior = model.bundle.manifest.input, model.bundle.prior()
    with PeakMemory(torch.device("cpu")) as spectrum:
        figures.spectrum_distance(whole, prior.magnitude(), engine.Grid(space.shape, space.voxel_size_mm))
    # Samples are compared by transforms of eight times the grid; a cube tells what a voxel costs.
    cube = torch.arange(float(_CUBE**3)).sin().reshape(_CUBE, _CUBE, _CUBE)
    begin = time.perf_counter()
    with PeakMemory(torch.device("cpu")) as agreement:
        figures.agreement(cube, cube.flip(0))
    share = whole.numel() / cube.numel()
    agreement_seconds = share * (time.perf_counter() - begin)
    # The volume, its float64 and its file lie beside it.
    beside = spectrum.peak + whole.nbytes + len(file.data)
    return Writing(file_seconds, beside, agreement_seconds, round(_WORKSPACE * share * agreement.peak))


def _seconds(plan: Plan, fit: Fit, writing: Writing) -> float:
    """Return the seconds of a whole job: steps, looks, snapshots, figures and files."""
    spec, voxels, volumes = plan.spec, plan.box.voxels, len(plan.spec.items)
    step, look = (fit.at(name, voxels, volumes) for name in ("step", "look"))
    running = spec.steps * step + math.ceil(spec.steps / spec.stopping.look_every) * look
    if spec.stopping.seconds:
        running = min(running, spec.stopping.seconds + step + look)
    snapshots = (spec.steps - 1) // spec.snapshot_every if spec.snapshot_every else 0
    copies = figures.COPIES * fit.at("reading", voxels, 1)
    whole = fit.at("reading", math.prod(plan.bundle.manifest.input.shape), 1)
    judging = sum(copies + _readings(plan) * whole for _ in spec.items)
    judging += (volumes - volumes // plan.request.samples) * writing.agreement_seconds
    return running + judging + volumes * (snapshots + _FILES) * writing.file_seconds


def _readings(plan: Plan) -> int:
    """Return how often the evaluation reads a volume on the whole grid."""
    wanted = plan.request.comparisons
    return 1 + bool(wanted.transfer_model) + (1 + len(wanted.real_images)) * bool(wanted.real_images)


def _peak_bytes(plan: Plan, model: LoadedModel, fit: Fit, writing: Writing) -> int:
    """Return the most bytes at once: of the steps, or of the figures on what they leave."""
    voxels, volumes = plan.box.voxels, len(plan.spec.items)
    grid = math.prod(plan.bundle.manifest.input.shape)
    stepping = fit.at("step_bytes", voxels, volumes)
    reading = max(figures.BATCH * fit.at("reading_bytes", voxels, 1), fit.at("reading_bytes", grid, 1))
    if model.device.type == "cuda":
        return round(max(stepping, fit.at("left_bytes", voxels, volumes) + reading))
    agreement = writing.agreement_bytes if plan.request.samples > 1 else 0
    return round(_SPLIT * stepping + max(reading, writing.spectrum_bytes, agreement))
