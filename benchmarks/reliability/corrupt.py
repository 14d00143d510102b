"""Damage to stored files: an earlier checkpoint or DATA_LOSS, never a wrong volume."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from rich.progress import track

from benchmarks.reliability.ledger import BODIES, Entry, Ledger, asked
from benchmarks.reliability.site import Site, site
from benchmarks.reliability.tiny import NAME
from benchmarks.reliability.watching import read_again
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import visualization_service_pb2 as vis
from tests.service.requests import failure

_LONG = BODIES[0].replace("steps: 120", "steps: 900").replace("snapshot_every: 15", "snapshot_every: 300")
_BUNDLE = ("weights.safetensors", "prior.safetensors", "reference.nii.gz", "bundle.json")


def _flip(file: Path, _: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _truncate(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def _remove(file: Path, _: Path) -> None:
    file.unlink()


def _swap(file: Path, other: Path) -> None:
    first, second = file.read_bytes(), other.read_bytes()
    file.write_bytes(second)
    other.write_bytes(first)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "flip": _flip,
    "truncate": _truncate,
    "remove": _remove,
    "swap": _swap,
}


def measure(ways: Sequence[str] = tuple(WAYS), files: Sequence[str] = _BUNDLE) -> dict[str, object]:
    """Damage volumes, checkpoints and bundles in each way, and return what came of it.

    Parameters
    ----------
    ways : sequence of str
        Of `WAYS`.
    files : sequence of str
        Which files of the bundle.
    """
    with site(checkpoint_seconds=0.05) as place:
        ledger = Ledger(place)
        ledger.learn((BODIES[0], BODIES[3], _LONG))
        found: Counter[str] = Counter()
        for way in track(ways, "damaged volumes"):
            found.update(_volume(place, ledger, way))
        for way in track(ways, "damaged bundles"):
            for file in files:
                found[_bundle(place, ledger, way, file)] += 1
        for way in track((*ways, "all"), "damaged checkpoints"):
            found[_checkpoint(place, ledger, way)] += 1
        found[_bundle_at_start(place, ledger)] += 1
        return {
            "cases": found.total(),
            "wrong_volumes": found.pop("wrong volume", 0),
            "not_noticed": found.pop("not noticed", 0),
            "outcomes": dict(sorted(found.items())),
        }


@contextmanager
def _damaged(way: str, file: Path, other: Path) -> Iterator[None]:
    """Damage a file, and put everything back afterwards."""
    before = {path: path.read_bytes() for path in (file, other)}
    WAYS[way](file, other)
    try:
        yield
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def _volume(place: Site, ledger: Ledger, way: str) -> list[str]:
    """Damage a finished job's result, and read it in both ways."""
    mine, other = (entry for entry in ledger.entries[:2])
    with _damaged(way, _final(place, mine), _final(place, other)):
        found = [_judge(place, ledger, mine, _read), _judge(place, ledger, mine, _watch)]
    if _judge(place, ledger, mine, _read) != "right volume":
        found.append("wrong volume")
    return found


def _final(place: Site, entry: Entry) -> Path:
    """Return the file of a job's result."""
    folder = place.data / "volumes" / entry.name.removeprefix("jobs/")
    number = max(n for n, event in entry.watcher.history.events.items() if event == b"volume final")
    return folder / f"{number}.nii.gz"


def _read(place: Site, entry: Entry) -> str:
    wish = jobs.ReadVolumeRequest(name=entry.name, volume="final")
    data = b"".join(part.data for part in place.server.jobs.ReadVolume(wish, timeout=60))
    return hashlib.sha256(data).hexdigest()


def _watch(place: Site, entry: Entry) -> str:
    digest, whole = hashlib.sha256(), False
    for answer in place.server.jobs.WatchJob(jobs.WatchJobRequest(name=entry.name), timeout=60):
        if answer.event.volume_chunk.id == "final":
            digest.update(answer.event.volume_chunk.data)
        whole |= answer.event.volume_end.id == "final"
    return digest.hexdigest() if whole else ""


def _judge(place: Site, ledger: Ledger, entry: Entry, ask: Callable[[Site, Entry], str]) -> str:
    try:
        digest = ask(place, entry)
    except grpc.RpcError as error:
        code, reason, _ = failure(error)
        return f"{code.name} {reason}"
    return "right volume" if digest == ledger.reference[entry.body]["final"] else "wrong volume"


def _bundle(place: Site, ledger: Ledger, way: str, file: str) -> str:
    """Damage a bundle under a running server: it is refused, or what is loaded gives the right volume."""
    folder = place.data.parent / "zoo" / NAME / "1"
    with _damaged(way, folder / file, folder / "MODEL_CARD.md"):
        return _asked_anew(place, ledger)


def _bundle_at_start(place: Site, ledger: Ledger) -> str:
    """Damage a bundle while the server is down and a job waits: it must not run."""
    entry = ledger.create(_LONG)
    place.kill()
    folder = place.data.parent / "zoo" / NAME / "1"
    with _damaged("flip", folder / "weights.safetensors", folder / "MODEL_CARD.md"):
        place.revive()
        entry.watcher.join(120)
        history, code = read_again(place, entry.name)
        if history.state == vis.JOB_STATE_SUCCEEDED or _asked_anew(place, ledger) == "right volume":
            return "not noticed"
    return f"waiting job ended with {code.name}"


def _asked_anew(place: Site, ledger: Ledger) -> str:
    """Create a job and return what it gives."""
    try:
        events = list(place.server.visualization.Visualize(asked(BODIES[3]), timeout=60))
    except grpc.RpcError as error:
        code, reason, _ = failure(error)
        return f"{code.name} {reason}"
    digest = events[-1].completed.provenance.volume_sha256
    return "right volume" if digest == ledger.reference[BODIES[3]]["final"] else "wrong volume"


def _checkpoint(place: Site, ledger: Ledger, way: str) -> str:
    """Kill a running job's server, damage its newest checkpoint (or all), and let it go on."""
    entry = ledger.create(_LONG)
    folder = place.data / "checkpoints" / entry.name.removeprefix("jobs/")
    while len(found := _checkpoints(folder)) < 2:
        if entry.watcher.over.wait(0.005):
            return "ended before there were two checkpoints"
    place.kill()
    found = _checkpoints(folder)
    older, newest = found[-2:]
    for file in found if way == "all" else [newest]:
        WAYS["flip" if way == "all" else way](file, older)
    place.revive()
    entry.watcher.join(120)
    history, _ = read_again(place, entry.name)
    if history.results() != ledger.reference[_LONG]:
        return "wrong volume" if history.completed else "not resumed"
    begun = [
        vis.VisualizeResponse.FromString(event) for event in history.events.values() if event[:1] != b"v"
    ]
    last = [event.state_changed.from_step for event in begun if event.state_changed.attempt > 1][-1]
    if last == int(newest.stem):
        return "not noticed"
    return "went on from an earlier checkpoint" if last else "went on from the start"


def _checkpoints(folder: Path) -> list[Path]:
    """Return a job's checkpoints, oldest first."""
    for _ in range(10):
        try:
            return sorted(folder.glob("*.safetensors"), key=lambda file: int(file.stem))
        except FileNotFoundError:
            time.sleep(0.001)
    return []
