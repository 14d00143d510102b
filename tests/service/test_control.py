"""Controls: the same units of the network with random weights, asked of the real server."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch

import neurofv
from models import ZOO, read_bundle
from neurofv.replays import compare, replay_request
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.plan import make_plan
from service.settings import Settings
from service.worker import checkpoint
from service.worker.__main__ import Worker
from service.worker.drawn import Drawn
from service.worker.estimate import Estimator
from service.worker.model import Models
from service.worker.telling import Task
from service.worker.wire import Frame, Kind, receive
from tests.server import RunningServer
from tests.service.requests import failure, request, violations
from tests.service.test_checkpoint import checkpoints, running, told

GROWN: dict[str, Any] = {"class_name": "grown", "steps": 6, "seed": 5, "snapshot_every": 0}
RANDOM = {"random_weights": {"seed": 3}}
BUNDLE = read_bundle(ZOO / "growth" / "1")
CPU = torch.device("cpu")
UNIT = 'objective { terms { class_logit { class_name: "grown" } } }'
CONTROL = "control { random_weights { seed: 3 } }"


@pytest.fixture
def client(server: RunningServer) -> Any:
    with neurofv.Client(server.target) as opened:
        yield opened


def test_a_control_is_reproducible_and_the_seed_counts(client: neurofv.Client) -> None:
    first, again, other, trained = (
        client.visualize("growth", control=control, **GROWN)
        for control in (RANDOM, RANDOM, "random_weights", None)
    )
    assert first.volume.bytes == again.volume.bytes
    assert first.evaluation == again.evaluation
    assert len({each.volume.bytes for each in (first, other, trained)}) == 3
    # The model as it is is none the worse for it.
    assert client.visualize("growth", **GROWN).volume.bytes == trained.volume.bytes


def test_nothing_is_claimed_of_real_images(client: neurofv.Client) -> None:
    (term,) = client.visualize("growth", control=RANDOM, **GROWN).evaluation.terms
    for figure in ("percentile", "real_p95", "real_maximum", "ratio_to_best"):
        assert not term.HasField(figure)
    assert term.HasField("held_out")
    assert 1 <= term.selectivity_rank <= term.layer_units == 2
    (trained,) = client.visualize("growth", **GROWN).evaluation.terms
    assert trained.HasField("percentile")


def test_the_record_says_what_it_is(client: neurofv.Client, tmp_path: Path) -> None:
    result = client.visualize("growth", control=RANDOM, **GROWN)
    assert result.provenance.request.control.random_weights.seed == 3
    assert result.provenance.model_digest == BUNDLE.digest
    assert result.volume.file_name.endswith("_desc-random3final_fv.nii.gz")
    assert "random weights (3)" in result.volume.nifti().header["descrip"].item().decode()
    assert result.label == "grown, random weights, seed 3"
    assert "random weights, seed 3" in result.sidecar()["Description"]
    assert result.sidecar()["request"]["control"] == {"random_weights": {"seed": 3}}
    assert result.verdicts()[0].startswith("a control (random weights, seed 3)")
    # Beside the model's own, which has a name of its own.
    files = {*result.save(tmp_path), *client.visualize("growth", **GROWN).save(tmp_path)}
    assert len(files) == len(list(tmp_path.iterdir())) == 6


def test_a_control_can_be_replayed(client: neurofv.Client) -> None:
    job = client.create_job("growth", control=RANDOM, **GROWN)
    recorded = client.watch(job.name)
    again = client.visualize(replay_request(client.job(job.name)))
    found = compare(recorded.provenance, again.provenance)
    assert found
    assert all(each.equal for each in found)


def test_it_is_the_network_with_its_weights_shuffled() -> None:
    models = Models(CPU)
    trained, control = models.get(BUNDLE), models.get(BUNDLE, 3)
    assert models.get(BUNDLE, 3) is control
    assert control.trained is trained
    volume = torch.from_numpy(trained.background)[None, None]
    with torch.inference_mode():
        assert not torch.allclose(control.network.network(volume), trained.network.network(volume))
    # Callers choose seeds: not every network that they think of is kept.
    for seed in (4, 5):
        models.get(BUNDLE, seed)
    assert models.get(BUNDLE, 3) is not control
    assert models.get(BUNDLE) is trained


def test_objectives_are_counted_in_the_controls_own_spreads() -> None:
    models = Models(CPU)
    trained, control = models.get(BUNDLE), models.get(BUNDLE, 3)
    plan = make_plan(request(UNIT, CONTROL, model="growth"), BUNDLE, Settings(repository=ZOO))
    (term,) = plan.spec.objective.terms
    assert (term.spread, term.real) == (1.0, None)
    (counted,) = control.in_spreads(plan.spec.objective).terms
    assert trained.in_spreads(plan.spec.objective) is plan.spec.objective
    # As much wider than on drawn brains as the trained layer's are on real images.
    key = ("classifier", "mean")
    drawn = [
        Drawn(each.network.network, BUNDLE, each.background, CPU).ends[key] for each in (control, trained)
    ]
    own, theirs = (ends[1] - ends[0] for ends in drawn)
    real = np.subtract(*trained.ends(term.unit)[::-1])  # type: ignore[index]
    assert counted.spread == pytest.approx(own[1] * np.median(real) / np.median(theirs))
    assert counted.spread not in (0.0, 1.0)


def test_a_job_looks_up_while_its_control_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first step is far away: meanwhile who cancels, a server that ends and questions are heard."""
    shutil.copytree(ZOO / "growth", tmp_path / "growth")
    settings = Settings(repository=tmp_path, threads=1)
    plan = make_plan(request(UNIT, CONTROL, "steps: 2", model="growth"), BUNDLE, settings)
    mine, servers = socket.socketpair()
    worker, shown, note = Worker(mine, settings), [], Drawn._note

    def disturb(drawn: Drawn, seen: Any) -> None:
        note(drawn, seen)
        shown.append(drawn)
        if len(shown) == 3:
            worker._questions.put(Frame(Kind.PROBE, 7, b""))
            worker._pauses += 1
        if len(shown) == 5:
            worker._cancelled.add(1)

    monkeypatch.setattr(Drawn, "_note", disturb)
    for count, kinds in ((3, [Kind.UNANSWERED, Kind.PAUSED]), (5, [Kind.STOPPED])):
        worker._run([Task(1, plan.request.SerializeToString())])
        assert len(shown) == count
        assert [receive(servers).kind for _ in kinds] == kinds
        worker._pauses_done = worker._pauses
    # Eight brains to each network, and what has been shown is not shown again.
    assert len(list(worker._models.get(BUNDLE, 3).measure(plan))) == 11
    assert [shown.count(drawn) for drawn in dict.fromkeys(shown)] == [8, 8]
    for connection in (mine, servers):
        connection.close()


def test_an_estimate_measures_no_control_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made between two steps of somebody's job, and callers choose seeds."""
    models, estimator, runs = Models(CPU), Estimator(Settings(repository=ZOO)), []
    sample = estimator._sample
    monkeypatch.setattr(estimator, "_sample", lambda *given: runs.append(given) or sample(*given))
    monkeypatch.setattr(Drawn, "measure", None)
    for parts, count in (((), 1), ((CONTROL,), 2), ((CONTROL.replace("3", "4"),), 2)):
        plan = make_plan(request(UNIT, *parts, model="growth"), BUNDLE, Settings(repository=ZOO))
        estimator.estimate(plan, models.get(BUNDLE, plan.control))
        assert len(runs) == count


def test_a_checkpoint_is_of_one_network_only() -> None:
    def made_with(*parts: str) -> dict[str, str | int]:
        plan = make_plan(request(UNIT, *parts, model="growth"), BUNDLE, Settings(repository=ZOO))
        return checkpoint.fingerprint(plan, CPU)

    assert made_with(CONTROL) == made_with(CONTROL)
    assert len({str(made_with(*parts)) for parts in ((), (CONTROL,), (CONTROL.replace("3", "4"),))}) == 3


def test_a_killed_control_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    shutil.copytree(ZOO / "growth", tmp_path / "growth")
    asked = request(UNIT, CONTROL, "steps: 6 snapshot_every: 2", model="growth")
    data = make_plan(asked, BUNDLE, Settings(repository=ZOO, threads=1)).request.SerializeToString()
    with running(repository=tmp_path) as one:
        one.send(Kind.RUN, 1, data)
        whole = one.life(1)
    with running(repository=tmp_path) as other:
        count, step, state = checkpoints(whole)[2]
        rest = other.go_on(1, data, count, step, state)
        assert told(rest) == told(whole)[count:]
        assert [number for _, number, _ in checkpoints(rest)] == [4, 5]


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        (("control {}",), "control"),
        (
            (CONTROL, "regularization { regularizers { activation_ceiling {} } }"),
            "regularization.activation_ceiling",
        ),
    ],
)
def test_what_a_control_cannot_be_is_refused(
    server: RunningServer, parts: tuple[str, ...], field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(server.visualization.Visualize(request(UNIT, *parts, model="growth"), timeout=60))
    assert failure(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert violations(caught.value) == [field]
    asked = vis.EstimateRequest(request=request(UNIT, *parts, model="growth"))
    with pytest.raises(grpc.RpcError):
        server.visualization.Estimate(asked, timeout=60)


def test_a_control_is_estimated_like_the_model(server: RunningServer) -> None:
    asked = vis.EstimateRequest(request=request(UNIT, CONTROL, model="growth"))
    found = server.visualization.Estimate(asked, timeout=60)
    assert found.request.control.random_weights.seed == 3
    assert found.seconds > 0
