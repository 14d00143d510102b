"""The search for shortcuts: real images with nuisances added are shown to the model, through the service."""

import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from neurofv.audit.battery import battery
from neurofv.audit.grid import affine_of, on_grid
from neurofv.audit.images import RealImage
from neurofv.audit.jobs import patient
from neurofv.audit.nuisances import Nuisance, Place
from neurofv.audit.progress import Meter
from neurofv.audit.shortcuts import FEWEST, SCREENED, Untestable, find_shortcuts, head_mask
from neurofv.audit.weights import check_weights
from neurofv.client import Client
from neurofv.errors import InvalidRequest
from neurofv.v1 import model_service_pb2 as pb

ANSWERS = "probes.jsonl"
# As many as the benchmark of planted shortcuts shows, whose figures hold for no fewer.
_OF_A_CLASS, _WITHOUT_CLASSES = 7, 14
_RANDOM = {"random_weights": {"seed": 0}}
# A head fills half of its grid at most, or two thirds with its skull.
_MOST_FILLED = 0.9


class Answers:
    """What a model has answered, kept in a file from run to run.

    Parameters
    ----------
    path : Path
        The file; one JSON object a line, so that a runner that is killed loses the last one at most.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[float]] = {}
        if not path.exists():
            return
        data = path.read_bytes()
        for line in data.splitlines():
            try:
                kept = json.loads(line)
                self._known[kept["shown"]] = kept["logits"]
            except (ValueError, KeyError, TypeError):
                # It is asked for again.
                continue
        if data and not data.endswith(b"\n"):
            self._append("")

    def get(self, shown: str) -> list[float] | None:
        """Return the logits of what was shown, by its digest; None if that is not known."""
        return self._known.get(shown)

    def keep(self, shown: str, logits: list[float]) -> None:
        """Write an answer down."""
        self._known[shown] = logits
        self._append(json.dumps({"shown": shown, "logits": logits}))

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Search:
    """A search for nuisances that a model's answers follow.

    Parameters
    ----------
    client : Client
        The server.
    model : Model
        The model, with classes.
    images : sequence of RealImage
        A few of each class are taken, in order.

    Attributes
    ----------
    probes : int
        How often the model is asked at most; about half as often where nothing is found, since random
        weights are not asked then.

    Raises
    ------
    InvalidRequest
        The images do not serve.
    OSError
        One cannot be read.
    """

    def __init__(self, client: Client, model: pb.Model, images: Sequence[RealImage]) -> None:
        self._client, self._model = client, model
        chosen = _few(images)
        _check_count(chosen, images)
        self._volumes = [on_grid(each.path, model.input) for each in chosen]
        for image, volume in zip(chosen, self._volumes, strict=True):
            _check_air(image, volume)
        self._affine = affine_of(model.input)
        self._mask = head_mask(self._volumes)
        if not self._mask.any():
            remedy = "no place is filled in half of them; give images that are in the model's space"
            raise InvalidRequest("images", f"{len(chosen)} images", remedy)
        self._battery = battery(Place(self._affine, self._mask))
        few, every = min(SCREENED, len(chosen)), len(chosen)
        once = every + sum(_forms(each) * few + every for each in self._battery.values())
        self.probes, self._asked = 2 * once, 0

    def run(self, folder: Path, meter: Meter) -> dict[str, Any]:
        """Search, or go on where another run was interrupted.

        Parameters
        ----------
        folder : Path
            Where answers are kept.
        meter : Meter
            Has been told of the probes to expect; told of each.

        Returns
        -------
        dict
            `tested`, the kinds of nuisance, and `found`, as the report has them; where nothing could be
            tested, both are empty, and `untestable` says why.

        Raises
        ------
        InvalidRequest
            The images do not serve.
        NeurofvError
            The server failed.
        """
        ask = partial(self._logits, Answers(folder / ANSWERS), meter)
        try:
            found = find_shortcuts(
                partial(ask, None),
                self._volumes,
                self._affine,
                self._mask,
                list(self._model.classes),
                partial(ask, _RANDOM),
            )
        except Untestable as error:
            return {"tested": [], "found": [], "untestable": str(error)}
        except ValueError as error:
            raise InvalidRequest("images", f"{len(self._volumes)} images", str(error)) from None
        finally:
            meter.expect(self._asked - self.probes)
            meter.say("")
        return {"tested": list(self._battery), "found": [vars(each) for each in found]}

    def _logits(
        self, answers: Answers, meter: Meter, control: dict[str, Any] | None, volume: np.ndarray
    ) -> np.ndarray:
        volume = np.asarray(volume, np.float32)
        key = json.dumps([self._model.digest, control, volume.shape]).encode() + volume.tobytes()
        shown = hashlib.sha256(key).hexdigest()
        logits, seconds = answers.get(shown), None
        if logits is None:
            begun = time.monotonic()
            logits = self._ask(volume, control)
            seconds = time.monotonic() - begun
            answers.keep(shown, logits)
        self._asked += 1
        meter.probed("looking for shortcuts" + (" of random weights" if control else ""), seconds)
        return np.array(logits)

    def _ask(self, volume: np.ndarray, control: dict[str, Any] | None) -> list[float]:
        model, image = self._model, nibabel.Nifti1Image(volume, self._affine)
        answer = patient(
            self._client,
            lambda: self._client.probe(model.name, image, version=model.version, control=control),
        )
        check_weights(f"{model.name}/{model.version}", model.digest, answer.model_digest)
        return list(answer.logits)


def _forms(nuisance: Nuisance) -> int:
    """Return how many forms of a nuisance are tried before one is measured."""
    forms = len(nuisance.variants)
    return 0 if forms == 1 else forms + (nuisance.mix is not None)


def _few(images: Sequence[RealImage]) -> list[RealImage]:
    """Return a few images of each class or, where classes are not known, the first ones."""
    labelled = [image for image in images if image.class_name]
    if not labelled:
        return list(images[:_WITHOUT_CLASSES])
    found: dict[str, list[RealImage]] = {}
    for image in labelled:
        found.setdefault(image.class_name, []).append(image)
    return [image for members in found.values() for image in members[:_OF_A_CLASS]]


def _check_count(chosen: Sequence[RealImage], images: Sequence[RealImage]) -> None:
    """Refuse fewer images than can be told apart, before pictures are made."""
    if len(chosen) < FEWEST:
        remedy = f"`probes` needs at least {FEWEST}, of several classes if possible; "
        remedy += "where some have a class, the others are not shown"
        raise InvalidRequest("images", f"{len(chosen)} of {len(images)} images", remedy)


def _check_air(image: RealImage, volume: np.ndarray) -> None:
    """Refuse an image without air, where markers and the edge of the field of view would show."""
    filled = float(np.mean(volume != 0))
    if not 0 < filled <= _MOST_FILLED:
        remedy = f"{filled:.0%} of its voxels on the model's grid are not 0, and `probes` needs a brain with "
        raise InvalidRequest("images", image.name, remedy + "air of 0 around it; set what is not brain to 0")
