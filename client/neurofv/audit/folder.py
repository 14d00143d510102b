"""The folder that an audit fills: pictures with their sidecars, and what holds it together.

Every file is written whole or not at all, and a picture counts only with its sidecar, which is
written last and holds the digests of its volumes. So whatever was interrupted, what lies there is
either of use or made again.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np

from neurofv.audit import lock
from neurofv.audit.plan import Plan, schema
from neurofv.audit.tasks import Key, Task
from neurofv.audit.weights import check_weights
from neurofv.bids import check_dataset, describe_dataset
from neurofv.errors import InvalidRequest
from neurofv.files import check_writable, write_atomically
from neurofv.results import Visualization
from neurofv.v1 import model_service_pb2 as pb
from neurofv.volumes import SUFFIX, Volume

DATASET = Path("derivatives") / "neurofv"
REFERENCE = f"reference{SUFFIX}"
PLAN, REPORT, RUN, SCHEMA = "plan.yaml", "report.json", "run.json", "report.schema.json"
EXEMPLARS = Path("exemplars")
EXEMPLAR = re.compile(r"[a-z0-9-]+-\d+\.png")
# What an audit writes, by folder: drafts of these that a killed runner has left may be removed.
_OWN = {
    Path(): re.compile("|".join(map(re.escape, (REFERENCE, PLAN, REPORT, RUN, SCHEMA, "report.html")))),
    DATASET: re.compile(r"dataset_description\.json|README\.md|\.bidsignore|.+_fv\.(json|nii\.gz)"),
    EXEMPLARS: EXEMPLAR,
}
_DRAFT = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


class Folder:
    """Where an audit's files lie.

    Parameters
    ----------
    path : str or Path
        The folder; made if it is missing.

    Attributes
    ----------
    path : Path
        The same.
    pictures : dict
        Sidecars of the pictures that are there, by `Key`, each with its own `path`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.pictures: dict[Key, dict[str, Any]] = {}
        self._run: dict[str, Any] = {}
        self._bound: dict[str, Any] = {}
        self._lock: IO[str] | None = None

    def take(
        self,
        plan: Plan,
        model: pb.Model,
        images_sha256: str,
        transfers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Keep other runners out until `end` or `release`; nothing of this audit is written yet.

        Parameters
        ----------
        plan : Plan
            What is audited.
        model : Model
            Whose pictures they are.
        images_sha256 : str
            Digest of the real images; empty without any.
        transfers : mapping, optional
            The second models, by strategy.

        Raises
        ------
        InvalidRequest
            Nothing can be written there, it holds another audit, or another runner fills it.
        """
        check_writable(self.path)
        check_dataset(self.path / DATASET)
        self._lock = lock.take(self.path)
        self._bound = {
            "plan_sha256": plan.sha256,
            "model_digest": model.digest,
            "images_sha256": images_sha256,
            "transfers": {name: dict(each) for name, each in (transfers or {}).items()},
        }
        try:
            self._run = self._known_run()
            self._check_bound()
        except BaseException:
            self.release()
            raise

    def _check_bound(self) -> None:
        for name, what in (
            ("plan_sha256", "another plan"),
            ("model_digest", "other weights of the model"),
            ("images_sha256", "other images"),
            ("transfers", "another second model, which a strategy names with `transfer`,"),
        ):
            if self._run.get(name, self._bound[name]) != self._bound[name]:
                remedy = f"it holds the audit of {what}; name another folder, or remove this one"
                raise InvalidRequest("out", str(self.path), remedy)

    def begin(self, plan: Plan, model: pb.Model) -> None:
        """Begin, or go on with what an earlier run has left; from now on the folder holds this audit.

        Parameters
        ----------
        plan : Plan
            What is audited.
        model : Model
            Whose pictures they are.
        """
        self._run |= self._bound
        self._run.setdefault("runs", []).append({"started": _now()})
        self._run.setdefault("jobs", {})
        self._keep_run()
        write_atomically(self.path / PLAN, plan.text.encode())
        write_atomically(self.path / SCHEMA, _json(schema("report")))
        describe_dataset(self.path / DATASET, rights=model.license)
        for draft in self._drafts():
            draft.unlink(missing_ok=True)
        self._read_pictures()

    def _drafts(self) -> Iterator[Path]:
        """Yield what killed runners have left half written, and nothing that is not an audit's."""
        for place, own in _OWN.items():
            for path in (self.path / place).glob(".*.tmp"):
                draft = _DRAFT.fullmatch(path.name)
                if draft is not None and own.fullmatch(draft["name"]):
                    yield path

    def _read_pictures(self) -> None:
        """Find the pictures that are there, whole, and bound to what this audit is bound to."""
        for path in sorted((self.path / DATASET).glob("*_fv.json")):
            try:
                sidecar = json.loads(path.read_text(encoding="utf-8"))
                key = Key(**sidecar["audit"]["picture"])
                whole = all(
                    hashlib.sha256((path.parent / file["file"]).read_bytes()).hexdigest() == file["sha256"]
                    for file in sidecar["audit"]["files"].values()
                )
                bound = {**sidecar["audit"]["bound"], "model_digest": sidecar["provenance"]["model_digest"]}
                if whole and bound == self._bound:
                    self.pictures[key] = sidecar
            except (OSError, ValueError, KeyError, TypeError):
                # It is made again.
                continue

    def has(self, task: Task) -> bool:
        """Say whether all pictures of a task are there."""
        return all(key in self.pictures for key in task.keys)

    def note_job(self, request_id: str, job: str) -> None:
        """Write down which job makes what; for people, for it can be found again without."""
        self._run["jobs"][request_id] = job
        self._keep_run()

    def end(self, code: int) -> None:
        """Write down how a run ended."""
        self._run["runs"][-1] |= {"ended": _now(), "exit_code": code}
        self._keep_run()
        self.release()

    def release(self) -> None:
        """Let other runners in."""
        if self._lock is not None:
            self._lock.close()

    def save(self, task: Task, results: Sequence[Visualization]) -> None:
        """Write a job's pictures.

        Raises
        ------
        NeurofvError
            They are of other weights than those that are audited.
        """
        # The digest of the weights stands in the provenance.
        bound = {name: value for name, value in self._bound.items() if name != "model_digest"}
        for result in results:
            found = result.provenance
            check_weights(f"{found.model}/{found.version}", self._bound["model_digest"], found.model_digest)
        for key, result in zip(task.keys, results, strict=True):
            files = {}
            for name, volume in {"final": result.volume, **result.extras}.items():
                path = self.path / DATASET / _file_name(volume, key)
                write_atomically(path, volume.bytes)
                files[name] = {"file": path.name, "sha256": volume.sha256}
            final = files["final"]["file"]
            audit = {"picture": vars(key), "files": files, "bound": bound}
            sidecar = {"file": final, **result.sidecar(), "audit": audit}
            # Read back, so that a number is the same in whichever run it is used.
            data = _json(sidecar)
            write_atomically(self.path / DATASET / f"{final.removesuffix(SUFFIX)}.json", data)
            self.pictures[key] = json.loads(data)

    def save_reference(self, volume: Volume) -> None:
        """Write the model's reference brain."""
        write_atomically(self.path / REFERENCE, volume.bytes)
        self._run["reference_sha256"] = volume.sha256
        self._keep_run()

    def has_reference(self) -> bool:
        """Say whether the reference brain is there, as it was written."""
        try:
            data = (self.path / REFERENCE).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == self.reference_sha256

    @property
    def reference_sha256(self) -> str:
        """Digest of the reference brain's file; empty as long as there is none."""
        return str(self._run.get("reference_sha256", ""))

    def change(self, key: Key) -> np.ndarray:
        """Return what a picture adds to the reference brain, float32."""
        final = self.pictures[key]["audit"]["files"]["final"]
        reference = _voxels(self.path / REFERENCE, self.reference_sha256)
        return _voxels(self.path / DATASET / final["file"], final["sha256"]) - reference

    def write_report(self, report: dict[str, Any]) -> Path:
        """Write `report.json`."""
        path = self.path / REPORT
        write_atomically(path, _json(report))
        return path

    def _known_run(self) -> dict[str, Any]:
        try:
            known = json.loads((self.path / RUN).read_text(encoding="utf-8"))
            return known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            return {}

    def _keep_run(self) -> None:
        write_atomically(self.path / RUN, _json(self._run))


@lru_cache(maxsize=16)
def _voxels(path: Path, sha256: str) -> np.ndarray:
    """Read voxels; the digest tells a file from another that has taken its place."""
    return np.asarray(nibabel.load(path).get_fdata(dtype=np.float32))  # type: ignore[attr-defined]


def _file_name(volume: Volume, key: Key) -> str:
    """Return the server's name, which tells controls apart, with the rest of a picture's key."""
    head, found, label = volume.file_name.rpartition("_desc-")
    # The server's labels are letters and digits only, which layer1.10 and layer11.0 would share.
    unit = hashlib.sha256(key.unit.encode()).hexdigest()[:8]
    own = f"_id-{unit}_strategy-{key.strategy}_seed-{key.seed}"
    return f"{head}{own}{found}{label}" if found else f"{own.lstrip('_')}_{volume.file_name}"


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
