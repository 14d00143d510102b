"""`kill -9` of the server and its worker, at every failpoint and at random moments."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import track

from benchmarks.reliability.ledger import BODIES, Entry, Ledger, Supervisor
from benchmarks.reliability.site import Site, site
from neurofv.v1 import visualization_service_pb2 as vis
from service.failpoints import FAILPOINTS

# At which pass of a place the process dies.
_PASSES = {
    "cancel.before_commit": (1,),
    "delete.before_commit": (1, 2),
    "delete.after_commit": (1, 2),
    "audit.after_write": (1, 3, 4, 5, 6),
    "worker.step": (1, 40, 110),
    "events.before_commit": (1, 2, 9),
    "events.after_commit": (1, 2, 9),
    "volume.after_rename": (1, 3, 9),
    "volume.before_rename": (1, 3, 9),
}
POINTS = [(name, count) for name in FAILPOINTS for count in _PASSES.get(name, (1, 2))]
_LONG = BODIES[3].replace("steps: 90", "steps: 9000")
_IN_FLIGHT = 5


def at_failpoints(points: Sequence[tuple[str, int]] = POINTS) -> dict[str, object]:
    """Kill at each place once, and return what became of the jobs.

    Parameters
    ----------
    points : sequence of (str, int)
        A failpoint and which of its passes.
    """
    with site(checkpoint_seconds=0.1) as place:
        ledger, supervisor = Ledger(place), Supervisor(place)
        ledger.learn(BODIES)
        supervisor.start()
        died = []
        for name, count in track(points, "kill -9 at failpoints"):
            if _round(place, ledger, supervisor, f"{name}:{count}"):
                died.append(f"{name}:{count}")
        supervisor.next = {}
        place.kill()
        _wait(lambda: place.alive)
        found = _judged(place, ledger, supervisor)
    # `worker.*` are places in the worker, all others in the server.
    missed = [f"{name}:{count}" for name, count in points if f"{name}:{count}" not in died]
    return {"places": len({name for name, _ in points}), "kills": len(died), "not_reached": missed, **found}


def _round(place: Site, ledger: Ledger, supervisor: Supervisor, point: str) -> bool:
    """Let a server with a failpoint do everything that it can; return whether it died there."""
    flag = place.data.parent / "flag"
    supervisor.next = {"failpoint": f"{point}:{flag}"}
    place.kill()
    _wait(lambda: place.alive)
    flag.touch()
    first = ledger.create(BODIES[0], again=True)
    others = [ledger.create(BODIES[2]), ledger.create(BODIES[3])]
    long = ledger.create(_LONG)
    _wait(lambda: bool(long.watcher.history.steps) or long.watcher.over.is_set())
    ledger.cancel(long)
    long.watcher.join(120)
    ledger.delete(first)
    ledger.delete(others[0])
    others[1].watcher.join(120)
    reached = not flag.exists()
    flag.unlink(missing_ok=True)
    return reached


def at_random(kills: int, seed: int = 0, server_share: float = 0.2) -> dict[str, object]:
    """Kill at random moments while jobs run, and return what became of them.

    Parameters
    ----------
    kills : int
        How often.
    seed : int
        Of the moments.
    server_share : float
        Share of the kills that hit the server; the others hit its worker.
    """
    chance = random.Random(seed)
    with site(checkpoint_seconds=0.1) as place:
        ledger, supervisor = Ledger(place), Supervisor(place)
        ledger.learn(BODIES)
        supervisor.start()
        done = {"worker": 0, "server": 0}
        for _ in track(range(kills), "kill -9 at random moments"):
            while len(ledger.open()) < _IN_FLIGHT:
                body = chance.choice(BODIES)
                if chance.random() < 0.2:
                    ledger.create_once(body)
                else:
                    ledger.create(body, again=chance.random() < 0.2)
            done[_kill(place, ledger, chance, server_share)] += 1
        found = _judged(place, ledger, supervisor)
    return {
        "kills": sum(done.values()),
        "of_the_worker": done["worker"],
        "of_the_server": done["server"],
        **found,
    }


def _kill(place: Site, ledger: Ledger, chance: random.Random, server_share: float) -> str:
    """Kill one of the two at a moment of chance; never a job's third process, which would end it."""
    while True:
        if chance.random() < 0.9:
            _wait(lambda: bool(ledger.running()) or not ledger.open())
            time.sleep(chance.uniform(0, 0.8))
        else:
            time.sleep(chance.uniform(0, 0.2))
        if not ledger.at_last_attempt():
            hit = {entry.name: entry.watcher.history.attempt for entry in ledger.running()}
            worker = chance.random() >= server_share
            if place.alive and place.kill(worker=worker):
                break
        time.sleep(0.02)
    # Until everybody has heard of it, the next kill might hit a job once too often.
    struck = [entry for entry in ledger.entries if entry.name in hit]
    _wait(lambda: all(_has_heard(entry, hit[entry.name]) for entry in struck))
    return "worker" if worker else "server"


def _has_heard(entry: Entry, attempt: int) -> bool:
    history = entry.watcher.history
    moved = history.state != vis.JOB_STATE_RUNNING or history.attempt > attempt
    return moved or entry.watcher.over.is_set()


def _judged(place: Site, ledger: Ledger, supervisor: Supervisor) -> dict[str, object]:
    ledger.settle()
    supervisor.dismiss()
    found = ledger.check()
    left = _leftovers(place.data)
    if place.stop() != 0:
        ledger.faults.append("the server did not shut down in good order")
    return {**found, "audit_records": ledger.check_audit(), "starts": place.starts, **left}


def _leftovers(data: Path) -> dict[str, int]:
    """Return what lies about though every job has ended."""
    return {
        "checkpoints_left": sum(1 for _ in (data / "checkpoints").rglob("*.safetensors")),
        "partial_files_left": sum(1 for _ in data.rglob("*.part")),
    }


def _wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.01)
