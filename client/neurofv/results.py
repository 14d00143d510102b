"""What a visualization amounts to: volumes, their figures, their origin."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from neurofv.bids import check_dataset, describe_dataset
from neurofv.errors import InvalidRequest
from neurofv.files import write_atomically
from neurofv.images import Image, nifti_bytes
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.volumes import SUFFIX, Volume, target_path
from neurofv.words import control_name, objective_name, objective_of, seed_of, verdicts


@dataclass(frozen=True)
class Visualization:
    """A finished visualization.

    Attributes
    ----------
    job : str
        The job's resource name on the server.
    volume : Volume
        The final volume.
    evaluation : Evaluation
        Figures on it.
    provenance : Provenance
        All that is needed to make it again; its `volume_sha256` is this volume's.
    snapshots : tuple of Volume
        Those that came on the way, oldest first.
    extras : mapping of str to Volume
        What belongs to the volume: `gradient` and, where there is one, `jacobian` or `opacity`.
    batch : tuple of Visualization
        The other volumes of the same request, in order.
    """

    job: str
    volume: Volume
    evaluation: vis.Evaluation
    provenance: vis.Provenance
    snapshots: tuple[Volume, ...] = ()
    extras: Mapping[str, Volume] = field(default_factory=dict)
    batch: tuple["Visualization", ...] = ()

    @property
    def request(self) -> vis.VisualizeRequest:
        """The request with every default filled in: sent again, it gives the same volumes.

        An image of a person is not in it; see `read_request`.
        """
        return self.provenance.request

    @property
    def item(self) -> int:
        """Which volume of the request's batch it is, from 0."""
        return self.volume.item

    @property
    def items(self) -> tuple["Visualization", ...]:
        """All volumes of the request, in order, each by itself."""
        return (replace(self, batch=()), *self.batch)

    @property
    def objective(self) -> method.Objective:
        """What was driven to make this volume."""
        return objective_of(self.request, self.item)

    @property
    def seed(self) -> int:
        """Seed of this volume's draws."""
        return seed_of(self.request, self.item)

    @property
    def label(self) -> str:
        """What was driven, for people, such as `cube against 5 others` or `blocks.2.conv:5 (seed 3)`."""
        name = objective_name(self.objective)
        if control := control_name(self.request):
            name += f", {control}"
        return f"{name} (seed {self.seed})" if self.request.samples > 1 else name

    @property
    def title(self) -> str:
        """A heading, such as `lesion-shapes/1 · cube against 5 others`."""
        return f"{self.provenance.model}/{self.provenance.version} · {self.label}"

    def verdicts(self) -> list[str]:
        """Say in plain language what the figures mean; see `neurofv.words.verdicts`."""
        return verdicts(self.evaluation, self.request, self.item)

    def sidecar(self) -> dict[str, Any]:
        """Return the record that lies beside the volume.

        Returns
        -------
        dict
            BIDS' own `Description` and `SpatialReference`; `item`, `job`, `request` (with every default
            filled in), `evaluation` and `provenance`, as the proto's JSON with its own field names.
        """
        provenance = vis.Provenance()
        provenance.CopyFrom(self.provenance)
        # The request has its own place.
        provenance.ClearField("request")
        model = f"{self.provenance.model}/{self.provenance.version}"
        return {
            "Description": f"Feature visualization of {self.title}; synthetic, no scan",
            # The bundle's own mean image, on whose grid the volume lies.
            "SpatialReference": f"neurofv:{model}/reference.nii.gz",
            "item": self.item,
            "job": self.job,
            "request": _plain(self.request),
            "evaluation": _plain(self.evaluation),
            "provenance": _plain(provenance),
        }

    def save(self, path: str | Path, bids: bool = False, rights: str = "") -> tuple[Path, ...]:
        """Write each volume, its sidecar and its extras; older files of these names are replaced.

        Parameters
        ----------
        path : str or Path
            A directory, in which the server's BIDS-like names are used, or, for a single volume, a name
            that ends in `.nii.gz`.
        bids : bool
            Make the directory a derivative data set of BIDS: with a description and a README.
        rights : str
            For its description: the license of the model's data, which shine through (`Model.license`).

        Returns
        -------
        tuple of Path
            Where they lie: the volume, its sidecar `name.json`, its extras (`name_gradient.nii.gz` and so
            on); then the same of the next volume.

        Raises
        ------
        InvalidRequest
            The name has another ending, or one name is given for several volumes or for a data set; the
            directory is another data set.
        OSError
            A file cannot be written.
        """
        single = is_file(path, len(self.items), bids)
        if bids:
            check_dataset(Path(path))
        files: list[Path] = []
        for each in self.items:
            for name, volume in {"": each.volume, **each.extras}.items():
                target = Path(path) if single else Path(path) / volume.file_name
                if name and single:
                    target = beside(target, f"_{name}{SUFFIX}")
                # Unlike objectives may drive the same unit, of which the server's names are made.
                if target in files:
                    target = target.with_name(_apart(target.name, each.item))
                files.append(volume.save(target))
                if not name:
                    files.append(each._write_sidecar(target))
        if bids:
            describe_dataset(Path(path), dict(self.provenance.software).get("neurofv", ""), rights)
        return tuple(files)

    def _write_sidecar(self, nifti: Path) -> Path:
        path = beside(nifti, ".json")
        text = json.dumps({"file": nifti.name, **self.sidecar()}, indent=2, ensure_ascii=False)
        write_atomically(path, (text + "\n").encode())
        return path


def is_file(path: str | Path, volumes: int = 1, bids: bool = False) -> bool:
    """Say whether a path to save to means one file, and no directory.

    Parameters
    ----------
    path : str or Path
        As `Visualization.save` takes it.
    volumes : int
        How many volumes are to be saved.
    bids : bool
        Whether they are to be a data set, which needs a directory.

    Raises
    ------
    InvalidRequest
        It is one file's name, for several volumes or a data set, or no name for a volume at all.
    """
    if volumes == 1 and not bids:
        return target_path(path, "any").name != "any"
    if Path(path).name.endswith(SUFFIX) and not Path(path).is_dir():
        content = "data set" if bids else f"{volumes} volumes"
        remedy = f"name a directory for the {content}, such as {str(path).removesuffix(SUFFIX)}"
        raise InvalidRequest("path", str(path), remedy)
    return False


def beside(nifti: Path, suffix: str) -> Path:
    """Return the name of a file that accompanies `name.nii.gz`: `name` with another ending."""
    return nifti.with_name(nifti.name.removesuffix(SUFFIX) + suffix)


def _apart(name: str, item: int) -> str:
    """Return a server's name with an entity that tells items of one unit apart."""
    head, found, label = name.rpartition("_desc-")
    if not found:
        return f"{name.removesuffix(SUFFIX)}_item{item}{SUFFIX}"
    return f"{head}_item-{item}{found}{label}"


def read_request(sidecar: str | Path, subject: Image | None = None) -> vis.VisualizeRequest:
    """Read the request from a sidecar, to send it again.

    Parameters
    ----------
    sidecar : str or Path
        As `Visualization.save` wrote it.
    subject : str, PathLike, bytes or SpatialImage, optional
        The person's image, if there was one: no sidecar holds it, only its digest, against which the
        server checks what it is given. Real images for a comparison are to be put in likewise.

    Raises
    ------
    InvalidRequest
        It is no sidecar of this version.
    OSError
        It cannot be read.
    """
    try:
        record = json.loads(Path(sidecar).read_text(encoding="utf-8"))
        request = json_format.ParseDict(record["request"], vis.VisualizeRequest())
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        remedy = f"name the .json that lies beside a volume ({type(error).__name__}: {error})"
        raise InvalidRequest("sidecar", str(sidecar), remedy) from None
    if subject is not None:
        request.subject.nifti = nifti_bytes(subject, "subject")
    return request


def _plain(message: Message) -> dict[str, Any]:
    """Return a message as JSON values, with zeros written out: channel 0 is a channel."""
    plain: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain
