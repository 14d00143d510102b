"""The folder of an audit: what it takes over from an earlier run, and from whom it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from neurofv import InvalidRequest, NeurofvError, Visualization
from neurofv.audit.exemplars import rank_channels
from neurofv.audit.folder import DATASET, REFERENCE, RUN, Folder
from neurofv.audit.images import RealImage
from neurofv.audit.plan import Plan, read_plan
from neurofv.audit.runner import run_audit
from neurofv.audit.tasks import Task, Unit, find_tasks, find_units, request_id
from neurofv.audit.transfers import check_transfers, find_transfers, pinned
from neurofv.retries import Patience
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.test_results import fold

DIGEST = "ab" * 32
MODEL = pb.Model(name="m", version=1, digest=DIGEST)
SECOND = {"readable": {"model": "other", "version": 2, "digest": "cd" * 32}}
UNIT = Unit("conv-1", "conv", 1)


def plan(**fields: Any) -> Plan:
    return read_plan({"audit": 1, "model": "m", "units": [{"classes": "all"}], **fields})


PLAN = plan()


@contextmanager
def opened(
    path: Path, of: Plan = PLAN, images: str = "", transfers: dict[str, Any] | None = None
) -> Iterator[Folder]:
    folder = Folder(path)
    folder.take(of, MODEL, images, transfers)
    folder.begin(of, MODEL)
    yield folder
    folder.end(0)


def result(digest: str = DIGEST) -> Visualization:
    made = fold()
    made.provenance.model_digest = digest
    return made


def a_task(*units: Unit) -> Task:
    return Task(units or (UNIT,), "default", 0, "none")


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    with opened(tmp_path / "out") as folder:
        folder.save(a_task(), [result()])
        folder.save_reference(result().volume)
    return tmp_path / "out"


def test_pictures_are_taken_over_by_what_they_are_bound_to_even_without_the_record(filled: Path) -> None:
    with opened(filled) as folder:
        assert folder.has(a_task())
        assert folder.has_reference()
    for binding in ({"of": plan(batch=7)}, {"images": "ef" * 32}, {"transfers": SECOND}):
        (filled / RUN).unlink()
        with opened(filled, **binding) as folder:  # type: ignore[arg-type]
            assert not folder.has(a_task()), binding
            # Nothing tells whose it is.
            assert not folder.has_reference()
    (filled / RUN).unlink()
    with opened(filled) as folder:
        assert folder.has(a_task())


def test_another_second_model_is_another_audit(tmp_path: Path) -> None:
    with opened(tmp_path, transfers=SECOND):
        pass
    newer = {"readable": {**SECOND["readable"], "version": 3}}
    with pytest.raises(InvalidRequest, match="another second model"), opened(tmp_path, transfers=newer):
        pass


def test_a_reference_that_was_changed_is_fetched_again(filled: Path) -> None:
    (filled / REFERENCE).write_bytes(b"another")
    with opened(filled) as folder:
        assert not folder.has_reference()


def test_pictures_of_other_weights_end_the_run(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        with pytest.raises(NeurofvError, match="weights were replaced") as caught:
            folder.save(a_task(), [result("cd" * 32)])
        assert caught.value.reason == "MODEL_CHANGED"
        assert not folder.has(a_task())
    assert not list((tmp_path / DATASET).glob("*_fv*"))


class Server:
    """Plays a client: probes answer with one digest, models have another."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def probe(self, *_: Any, **__: Any) -> vis.ProbeResponse:
        return vis.ProbeResponse(model_digest=self.digest)

    def model(self, name: str, version: int) -> pb.Model:
        return pb.Model(name=name, version=version or 2, digest=self.digest)

    def _patience(self) -> None: ...


def test_probes_of_other_weights_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    ranked = plan(units=[{"layer": "conv", "channels": "top 1 by variance"}], images=str(tmp_path))
    model = replace_layers(MODEL)
    server: Any = Server("cd" * 32)
    with pytest.raises(NeurofvError, match="weights were replaced"):
        rank_channels(server, ranked, model, [RealImage("a.nii", tmp_path / "a.nii", "", "")], lambda _: None)


def replace_layers(model: pb.Model) -> pb.Model:
    found = pb.Model()
    found.CopyFrom(model)
    found.layers.add(name="conv", channels=2)
    return found


def test_second_models_are_resolved_pinned_and_watched() -> None:
    server: Any = Server("cd" * 32)
    asked = plan(strategies={"default": {}, "readable": {"transfer": "other"}})
    found = find_transfers(server, asked)
    assert found == SECOND
    class_model = pb.Model(name="m", version=1, classes=["a", "b"], classifier_layer="c")
    tasks = find_tasks(asked, find_units(asked, class_model, {}))
    task = next(task for task in tasks if task.strategy == "readable")
    request = pinned(task.request(asked, class_model), found[task.strategy])
    assert request.comparisons.transfer_version == 2
    assert request_id(asked, MODEL, request, 0) != request_id(asked, MODEL, request, 0, ["cd" * 32])
    check_transfers(server, found.values())
    server.digest = "ef" * 32
    with pytest.raises(NeurofvError, match="other/2: its weights were replaced"):
        check_transfers(server, found.values())


def test_two_runners_do_not_share_a_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(InvalidRequest, match=r"process \d+ on .* fills it"):
        Folder(tmp_path).take(PLAN, MODEL, "")
    with opened(tmp_path):
        pass
    # One that was refused leaves nothing behind either.
    with pytest.raises(InvalidRequest, match="another plan"):
        Folder(tmp_path).take(plan(batch=7), MODEL, "")
    with opened(tmp_path):
        pass


class Shown:
    """Plays a client whose server refuses every image."""

    def __init__(self) -> None:
        self.asked = 0

    def model(self, name: str, version: int) -> pb.Model:
        return pb.Model(name=name, version=1, digest=DIGEST, classes=["a", "b"], classifier_layer="c")

    def probe(self, *_: Any, **__: Any) -> vis.ProbeResponse:
        self.asked += 1
        raise NeurofvError(grpc.StatusCode.INVALID_ARGUMENT, "VOLUME_INVALID", "four axes")

    def _patience(self) -> Patience:
        return Patience(0.0)


def test_who_may_not_fill_a_folder_is_told_before_images_are_shown(tmp_path: Path) -> None:
    server, images, out = Shown(), tmp_path / "images", tmp_path / "out"
    client: Any = server
    images.mkdir()
    (images / "a.nii").touch()
    content = dict(plan(images=str(images)).content)
    with opened(out), pytest.raises(InvalidRequest, match="fills it"):
        run_audit(client, content, out)
    with pytest.raises(InvalidRequest, match="another plan"):
        run_audit(client, content, out)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="nothing can be written"):
        run_audit(client, content, tmp_path / "file")
    assert server.asked == 0
    # An image that is refused binds nothing, and the folder is free again.
    for asked in (1, 2):
        with pytest.raises(InvalidRequest, match="mend it"):
            run_audit(client, content, tmp_path / "new")
        assert server.asked == asked
        assert not (tmp_path / "new" / RUN).exists()
    with opened(tmp_path / "new"):
        pass


def test_only_drafts_of_an_audit_are_removed(tmp_path: Path) -> None:
    ours = [
        tmp_path / ".report.json.12.tmp",
        tmp_path / DATASET / ".space-a_model-b_desc-final_fv.nii.gz.12.tmp",
        tmp_path / "exemplars" / ".conv-1-2.png.12.tmp",
    ]
    others = [
        tmp_path / ".notes.tmp",
        tmp_path / ".thesis.doc.12.tmp",
        tmp_path / "deep" / ".report.json.12.tmp",
    ]
    for path in (*ours, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with opened(tmp_path):
        pass
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_units_whose_names_differ_in_points_alone_have_files_of_their_own(tmp_path: Path) -> None:
    """The server's names hold letters and digits only."""
    layers = ("layer1.10.conv", "layer11.0.conv", "a.b", "a-b", "a_b")
    model = pb.Model(name="m", layers=[pb.Layer(name=name, channels=6) for name in layers])
    units = find_units(plan(units=[{"layer": name, "channels": [5]} for name in layers]), model, {})
    assert len({unit.id for unit in units}) == 5
    with opened(tmp_path) as folder:
        for unit in units:
            folder.save(a_task(unit), [result()])
    files = {path.name for path in (tmp_path / DATASET).glob("*_fv.nii.gz")}
    assert len(files) == 5
    with opened(tmp_path) as folder:
        assert all(folder.has(a_task(unit)) for unit in units)
    sidecar = json.loads(next((tmp_path / DATASET).glob("*_fv.json")).read_text())
    assert sidecar["audit"]["bound"]["plan_sha256"] == PLAN.sha256
