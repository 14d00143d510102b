"""A job between two steps as bytes: safetensors, and in its header all that is no tensor.

Whoever goes on from it must come to the very bits that an uninterrupted run
comes to. So a checkpoint says what it was computed with, and one of another
setting is not gone on from; and it bears the SHA-256 of all its bytes.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import torch
from safetensors.torch import load, save

import engine
from service import __version__
from service.jobs.plan import Plan

_FORMAT = 1
# What the volume's beginning and its steps are computed with.
_SOFTWARE = ("torch", "numpy", "scipy")
_KEY = "neurofv"
# As it stands in the header: text in a text. The digest is that of the bytes with noughts in its place.
_MARK = b'\\"sha256\\": \\"'
_NOUGHTS = b"0" * 64
# Share of a run's time that its checkpoints may cost.
_MOST = 0.03


class DamagedCheckpoint(ValueError):
    """A checkpoint's bytes are not those that were written.

    Parameters
    ----------
    problem : str
        What is wrong with them.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"the checkpoint {problem}; use an earlier one, or begin at step 1")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A job between two steps.

    Attributes
    ----------
    state : engine.State
        Of the job's volumes.
    started : datetime
        When the job was begun.
    told : int
        Frames EVENT, VOLUME and SUCCEEDED that had been made of it.
    """

    state: engine.State
    started: datetime
    told: int = 0


def fingerprint(plan: Plan, device: torch.device) -> dict[str, str | int]:
    """Return what a job's bits depend on: a checkpoint is of use where all of it is the same.

    Parameters
    ----------
    plan : Plan
        The job's.
    device : torch.device
        Where it is computed.
    """
    gpu = device.type == "cuda"
    found: dict[str, str | int] = {name: version(name) for name in _SOFTWARE}
    found |= {
        "format": _FORMAT,
        "neurofv": __version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability(),
        "model": plan.bundle.digest,
        "request": hashlib.sha256(plan.request.SerializeToString(deterministic=True)).hexdigest(),
    }
    return found


def write(checkpoint: Checkpoint, made_with: Mapping[str, str | int]) -> bytes:
    """Return a checkpoint as safetensors.

    Parameters
    ----------
    checkpoint : Checkpoint
        What is to be kept.
    made_with : mapping
        The job's `fingerprint`.
    """
    state = checkpoint.state
    tensors = {
        f"{number}/{name}": tensor
        for number, item in enumerate(state.items)
        for name, tensor in item.tensors.items()
    }
    # Python writes a float so that the very same is read again, also infinity and NaN.
    said = json.dumps(
        {
            "sha256": _NOUGHTS.decode(),
            "fingerprint": made_with,
            "told": checkpoint.told,
            "started": checkpoint.started.isoformat(),
            "step": state.step,
            "seconds": state.seconds,
            "items": [dict(item.numbers) for item in state.items],
        }
    )
    data = bytearray(save(tensors, {_KEY: said}))
    place = data.index(_MARK) + len(_MARK)
    data[place : place + len(_NOUGHTS)] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def read(data: bytes, made_with: Mapping[str, str | int]) -> Checkpoint | None:
    """Return the checkpoint, or None if it was made with anything else.

    Parameters
    ----------
    data : bytes
        What `write` has returned.
    made_with : mapping
        The job's `fingerprint`.

    Raises
    ------
    DamagedCheckpoint
        The bytes are others.
    """
    _verify(data)
    # From here on the bytes are those that some version of this module has written.
    length = int.from_bytes(data[:8], "little")
    said = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
    if said["fingerprint"] != dict(made_with):
        return None
    tensors: list[dict[str, torch.Tensor]] = [{} for _ in said["items"]]
    for name, tensor in load(data).items():
        number, _, own = name.partition("/")
        tensors[int(number)][own] = tensor
    items = (engine.ItemState(*pair) for pair in zip(tensors, said["items"], strict=True))
    state = engine.State(said["step"], said["seconds"], tuple(items))
    return Checkpoint(state, datetime.fromisoformat(said["started"]), said["told"])


def _verify(data: bytes) -> None:
    place = data.find(_MARK) + len(_MARK)
    if place < len(_MARK):
        raise DamagedCheckpoint(f"of {len(data)} bytes bears no digest")
    found = hashlib.sha256(data[:place])
    found.update(_NOUGHTS)
    found.update(memoryview(data)[place + len(_NOUGHTS) :])
    if found.hexdigest().encode() != data[place : place + len(_NOUGHTS)]:
        raise DamagedCheckpoint(f"of {len(data)} bytes has another SHA-256 than it says")


class Pace:
    """When the next checkpoints of a run are due.

    Parameters
    ----------
    seconds : float
        Time between them; 0 for as often as can be. They come more seldom where making and sending the last
        ones took long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._wait = seconds, seconds
        self._begun = self._last = time.monotonic()

    def due(self) -> bool:
        """Tell whether they are; if so, they are begun now."""
        self._begun = time.monotonic()
        return self._begun - self._last >= self._wait

    def sent(self) -> None:
        """Take note that one has been sent."""
        self._last = time.monotonic()
        if self._seconds:
            self._wait = max(self._seconds, (self._last - self._begun) / _MOST)
