"""The search for shortcuts, on a server that is played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import nibabel
import numpy as np
import pytest

from neurofv import InvalidRequest, NeurofvError
from neurofv.audit import jobs
from neurofv.audit.images import RealImage
from neurofv.audit.probing import ANSWERS, Search
from neurofv.audit.progress import Meter, Progress
from neurofv.errors import unreachable
from neurofv.retries import Patience
from neurofv.v1 import model_service_pb2 as pb
from tests.client.audit.test_shortcuts import AFFINE, SHAPE, cohort, corner, deep, reader

SPACE = pb.InputSpace(shape=SHAPE, affine=AFFINE.ravel())
MODEL = pb.Model(name="m", version=1, digest="d", classes=["well", "ill"], input=SPACE)


class Server:
    """Plays the client and the server behind it.

    Parameters
    ----------
    score : callable
        The network; with random weights it says nothing.
    most : int
        Probes after which the worker is lost.
    away : tuple of int
        Probes before which the server is down, once each.
    """

    def __init__(
        self, score: Callable[[np.ndarray], np.ndarray], most: int = 10_000, away: tuple[int, ...] = ()
    ) -> None:
        self.score, self.most, self.asked = score, most, 0
        self.away = list(away)
        self._reconnect = 300.0

    def _patience(self) -> Patience:
        return Patience(self._reconnect)

    def probe(self, model: str, image: Any, *, version: int, control: Any) -> Any:
        if self.asked == self.most:
            raise NeurofvError(grpc.StatusCode.UNAVAILABLE, "WORKER_LOST", "lost")
        if self.asked in self.away:
            self.away.remove(self.asked)
            raise unreachable("127.0.0.1:1", "Connection reset by peer")
        self.asked += 1
        logits = np.zeros(2) if control else self.score(image.get_fdata())
        return SimpleNamespace(logits=[float(value) for value in logits], model_digest=MODEL.digest)


def written(folder: Path, kind: str) -> list[RealImage]:
    found = []
    for number, voxels in enumerate(cohort(kind)):
        path = folder / f"{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), AFFINE), path)
        found.append(RealImage(path.name, path, MODEL.classes[number % 2], ""))
    return found


def search(server: Server, images: list[RealImage], folder: Path) -> tuple[dict[str, Any], list[Progress]]:
    told: list[Progress] = []
    client: Any = server
    prepared, meter = Search(client, MODEL, images), Meter(told.append, [], 0)
    meter.expect(prepared.probes, 0.01)
    meter.estimate(client, [], lambda task: pytest.fail("there are no pictures"))
    return prepared.run(folder, meter), told


def test_a_planted_marker_is_found_and_the_search_tells_how_far_it_is(tmp_path: Path) -> None:
    images = written(tmp_path, "corner marker")
    server = Server(reader(corner, cohort("corner marker")))
    found, told = search(server, images, tmp_path)
    assert found["found"][0]["kind"] == "corner marker"
    assert found["found"][0]["control"] == 0
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    # The control's probes were expected too: no bar is full before the end.
    assert shares[-3] < 1
    assert shares[-1] == pytest.approx(1)
    left = [progress.seconds_left for progress in told]
    assert None not in left
    assert left[-1] == pytest.approx(0, abs=1e-6)


def test_nothing_is_found_where_nothing_is_planted(tmp_path: Path) -> None:
    images, server = written(tmp_path, "none"), Server(reader(deep, cohort("none")))
    found, told = search(server, images, tmp_path)
    assert found["found"] == []
    assert len(found["tested"]) >= 8
    assert told[-1].share == pytest.approx(1)


def test_an_interrupted_search_asks_only_for_the_rest(tmp_path: Path) -> None:
    images, score = written(tmp_path, "corner marker"), reader(corner, cohort("corner marker"))
    (tmp_path / "whole").mkdir()
    whole = Server(score)
    expected, _ = search(whole, images, tmp_path / "whole")
    # A lost worker is not asked again: it would be lost again, with others' jobs.
    broken = Server(score, most=100)
    with pytest.raises(NeurofvError, match="lost"):
        search(broken, images, tmp_path)
    # Nor is a line that was cut off counted.
    (tmp_path / ANSWERS).write_bytes((tmp_path / ANSWERS).read_bytes()[:-5])
    last = Server(score)
    found, _ = search(last, images, tmp_path)
    assert found == expected
    assert last.asked == whole.asked - 99
    again = Server(score, most=0)
    assert search(again, images, tmp_path)[0] == expected


def test_a_server_that_is_started_again_is_asked_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, score = written(tmp_path, "corner marker"), reader(corner, cohort("corner marker"))
    (tmp_path / "whole").mkdir()
    whole, restarted = Server(score), Server(score, away=(0, 0, 60, 61))
    expected, _ = search(whole, images, tmp_path / "whole")
    pauses: list[float] = []
    monkeypatch.setattr(jobs.time, "sleep", pauses.append)
    assert search(restarted, images, tmp_path)[0] == expected
    assert len(pauses) == 4
    assert not restarted.away
    assert restarted.asked == whole.asked
    # Who would not wait is told, and what was answered is kept.
    impatient = Server(score, away=(60,))
    impatient._reconnect = 0.0
    (tmp_path / ANSWERS).unlink()
    with pytest.raises(NeurofvError, match="no answer"):
        search(impatient, images, tmp_path)
    assert len((tmp_path / ANSWERS).read_bytes().splitlines()) == 60


def test_too_few_images_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    images, server = written(tmp_path, "none"), Server(reader(deep, cohort("none")))
    client: Any = server
    unlabelled = [replace(image, class_name="") for image in images[1:]]
    for given, told in (
        (images[:1], "1 of 1 images"),
        ([images[0], *unlabelled], f"1 of {len(images)} images"),
    ):
        with pytest.raises(InvalidRequest, match="at least 2") as caught:
            Search(client, MODEL, given)
        assert (caught.value.field, caught.value.value) == ("images", told)
    # Nor do images serve that have no place in common.
    for number, image in enumerate(images[:3]):
        voxels = np.zeros(SHAPE, np.float32)
        voxels[5 * number + 1 : 5 * number + 4, 5:10, 5:10] = 1
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), image.path)
    with pytest.raises(InvalidRequest, match="model's space"):
        Search(client, MODEL, images[:3])
    assert server.asked == 0


def test_an_image_without_air_is_refused(tmp_path: Path) -> None:
    images, server = written(tmp_path, "none"), Server(reader(deep, cohort("none")))
    client: Any = server
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE), images[3].path)
    with pytest.raises(InvalidRequest, match="100% of its voxels") as caught:
        Search(client, MODEL, images)
    assert (caught.value.field, caught.value.value) == ("images", "3.nii.gz")


def test_seven_images_of_each_class_are_shown(tmp_path: Path) -> None:
    client: Any = Server(reader(deep, cohort("none")))
    images = written(tmp_path, "none")
    probes = {many: Search(client, MODEL, (images[:2] * many)).probes for many in (4, 7, 8)}
    assert probes[4] < probes[7] == probes[8]
