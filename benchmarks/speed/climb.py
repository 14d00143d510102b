"""Time to what B1 reaches, and what coarser numbers and compilation are worth."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

import numpy as np
import torch

import engine
from benchmarks.peers.baselines import Run, b2
from benchmarks.speed.race import Competitor
from engine.evaluation import readings
from models import ZOO, Bundle, Repository
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.plan import make_plan
from service.settings import Settings
from service.worker.model import LoadedModel

MODEL = "lesion-shapes"
CHANNELS = (("blocks.1.conv", 5), ("blocks.2.conv", 11))
_DECAY, _STEPS, _EDGE = 1.5, 512, 32


def loaded() -> LoadedModel:
    """Return the model as a worker has it."""
    return LoadedModel.load(Repository(ZOO).get(MODEL, 1), torch.device("cpu"))


def asked(layer: str, channel: int, whole: bool, steps: int) -> vis.VisualizeRequest:
    """Return a request for a channel or, of the classifier, for a class."""
    request = vis.VisualizeRequest(model=MODEL, steps=steps, snapshot_every=0)
    term = request.objective.terms.add()
    if layer == "classifier":
        term.class_logit.class_name = bundle().manifest.classes[channel]
    else:
        term.channel.layer, term.channel.channel = layer, channel
    if whole:
        request.canvas.size_mm.CopyFrom(method_pb2.Extent())
    return request


def bundle() -> Bundle:
    """Return the model's bundle."""
    return Repository(ZOO).get(MODEL, 1)


def planned(model: LoadedModel, request: vis.VisualizeRequest, **changes: object) -> engine.Spec:
    """Return what a worker would run."""
    plan = make_plan(request, model.bundle, Settings())
    return replace(plan.spec, anatomy=model.anatomy(plan, Settings()), **changes)


def time_to_b1(rounds: int = 5) -> dict[str, dict[str, float]]:
    """Return, by unit, the seconds until a run is where B1 is after all of its steps, on 32^3 voxels.

    B1's picture is made by B2 without the network's tail: the same picture (`benchmarks.peers`), sooner. Its
    time is that of B1's own steps, measured beside.
    """
    model = loaded()
    shape = (_EDGE,) * 3
    steps = {
        layer: _b1_step(layer, shape, rounds) for layer in ("classifier", *(layer for layer, _ in CHANNELS))
    }
    found = {}
    for layer, channel in (("classifier", 1), ("classifier", 3), *CHANNELS):
        network = model.bundle.network()
        bounds = model.bundle.manifest.input.intensity_range
        picture = b2(network, layer, [Run(channel, 0)], shape, bounds, _DECAY, _STEPS, truncate=True)[0]
        reader = model.network.reader([layer])
        with torch.no_grad():
            target = float(reader(picture[None, None])[layer][0, channel].mean())
        begun = time.perf_counter()
        stopping = engine.Stopping(activation=target)
        request = asked(layer, channel, False, _STEPS)
        edge = _EDGE * model.bundle.manifest.input.voxel_size_mm[0]
        request.canvas.size_mm.CopyFrom(method_pb2.Extent(i=edge, j=edge, k=edge))
        spec = planned(model, request, stopping=stopping)
        *_, result = engine.visualize(model.network, spec)
        ours = time.perf_counter() - begun
        theirs = _STEPS * steps[layer]
        found[f"{layer}:{channel}"] = {
            "b1_activation": target,
            "b1_seconds": theirs,
            "seconds": ours,
            "steps": result.step,
            "reached": float(result.stopped is engine.Stop.ACTIVATION),
            "ratio": ours / theirs,
        }
    return found


def _b1_step(layer: str, shape: tuple[int, ...], rounds: int) -> float:
    arguments = ["b1", "--network", MODEL, "--layer", layer, "--shape", "x".join(map(str, shape))]
    rival = Competitor("B1", arguments)
    with ExitStack() as stack:
        rival.start(stack)
        rival.step(count=False)
        return median(rival.step() for _ in range(rounds))


def precisions() -> dict[str, dict[str, float]]:
    """Return how pictures of bfloat16 compare with those of float32, by unit of the default canvas."""
    model = loaded()
    found = {}
    for layer, channel in (("classifier", 1), ("classifier", 3), *CHANNELS):
        pictures, activations = [], []
        for precision in (engine.Precision.FLOAT32, engine.Precision.BFLOAT16):
            spec = planned(model, asked(layer, channel, False, 256), precision=precision)
            *_, result = engine.visualize(model.network, spec)
            pictures.append(result.image)
            reading = readings(model.network, spec.objective, result.image[None, None])
            activations.append(float(reading[0]))
        home = spec.start.begin(spec.anatomy, spec.intensity_range)
        changes = [(picture - home).flatten().numpy() for picture in pictures]
        found[f"{layer}:{channel}"] = {
            "float32_activation": activations[0],
            "bfloat16_activation": activations[1],
            "ratio": activations[1] / activations[0],
            "correlation_of_changes": float(np.corrcoef(*changes)[0, 1]),
        }
    return found


def compiled(rounds: int = 7) -> dict[str, object]:
    """Return what torch.compile makes of the network on the default canvas, beside the prepared one.

    It cannot look into oneDNN's routines, which the prepared network calls itself; so it gets the network as
    the bundle has it, frozen, and does its own folding and fusing.
    """
    model = loaded()
    spec = planned(model, asked("classifier", 1, False, 1))
    reader = model.network.reader(["classifier"])
    volume = torch.rand(1, 1, *spec.grid.shape, requires_grad=True)
    plain = model.bundle.network().requires_grad_(False).to(memory_format=torch.channels_last_3d)
    fast = torch.compile(plain)
    ways: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: reader(volume)["classifier"],
        lambda: plain(volume),
        lambda: fast(volume),
    )

    def timed(way: Callable[[], torch.Tensor]) -> float:
        begun = time.perf_counter()
        torch.autograd.grad(way().sum(), volume)
        return time.perf_counter() - begun

    try:
        compile_seconds = timed(ways[2])
    except Exception as error:  # no compiler on this machine, or a network that it cannot follow
        return {"usable": False, "why": str(error).splitlines()[0][:200]}
    times = [[timed(way) for way in ways] for _ in range(rounds)]
    prepared, frozen, quick = (1000 * median(line) for line in zip(*times, strict=True))
    return {
        "usable": True,
        "canvas": spec.grid.shape,
        "compile_seconds": compile_seconds,
        "prepared_ms": prepared,
        "frozen_ms": frozen,
        "compiled_ms": quick,
    }
