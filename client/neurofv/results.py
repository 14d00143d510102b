"""What a visualization amounts to: the volume, its figures, its origin."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from neurofv.errors import InvalidRequest
from neurofv.files import write_atomically
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.volumes import SUFFIX, Volume


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
        All that is needed to make it again.
    snapshots : tuple of Volume
        Those that came on the way, oldest first.
    """

    job: str
    volume: Volume
    evaluation: vis.Evaluation
    provenance: vis.Provenance
    snapshots: tuple[Volume, ...] = ()

    @property
    def request(self) -> vis.VisualizeRequest:
        """The request with every default filled in: sent again, it gives the same volume."""
        return self.provenance.request

    @property
    def label(self) -> str:
        """The unit that was driven, for people: `cube` or `blocks.2.conv:5`."""
        return unit_name(self.request.objective.terms[0])

    def sidecar(self) -> dict[str, Any]:
        """Return the record that lies beside the volume.

        Returns
        -------
        dict
            `job`, `request` (with every default filled in), `evaluation` and
            `provenance`, as the proto's JSON with its own field names.
        """
        provenance = vis.Provenance()
        provenance.CopyFrom(self.provenance)
        # The request has its own place.
        provenance.ClearField("request")
        return {
            "job": self.job,
            "request": _plain(self.request),
            "evaluation": _plain(self.evaluation),
            "provenance": _plain(provenance),
        }

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write the volume and its sidecar; older files of these names are replaced.

        Parameters
        ----------
        path : str or Path
            A name that ends in `.nii.gz`, or a directory, in which the server's BIDS-like name is used.

        Returns
        -------
        nifti, sidecar : Path
            Where they lie; the sidecar ends in `.json`.

        Raises
        ------
        InvalidRequest
            The name has another ending.
        OSError
            A file cannot be written.
        """
        nifti = self.volume.save(path)
        sidecar = beside(nifti, ".json")
        text = json.dumps({"file": nifti.name, **self.sidecar()}, indent=2, ensure_ascii=False)
        write_atomically(sidecar, (text + "\n").encode())
        return nifti, sidecar


def beside(nifti: Path, suffix: str) -> Path:
    """Return the name of a file that accompanies `name.nii.gz`: `name` with another ending."""
    return nifti.with_name(nifti.name.removesuffix(SUFFIX) + suffix)


def read_request(sidecar: str | Path) -> vis.VisualizeRequest:
    """Read the request from a sidecar, to send it again.

    Parameters
    ----------
    sidecar : str or Path
        As `Visualization.save` wrote it.

    Raises
    ------
    InvalidRequest
        It is no sidecar of this version.
    OSError
        It cannot be read.
    """
    try:
        record = json.loads(Path(sidecar).read_text(encoding="utf-8"))
        return json_format.ParseDict(record["request"], vis.VisualizeRequest())
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        remedy = f"name the .json that lies beside a volume ({type(error).__name__}: {error})"
        raise InvalidRequest("sidecar", str(sidecar), remedy) from None


def unit_name(term: method.ObjectiveTerm) -> str:
    """Return a unit's name for people: a class, or `layer:channel`."""
    match term.WhichOneof("unit"):
        case "class_logit":
            return term.class_logit.class_name
        case "neuron":
            return f"{term.neuron.layer}:{term.neuron.channel}"
        case _:
            return f"{term.channel.layer}:{term.channel.channel}"


def title(result: Visualization) -> str:
    """Return a result's heading, such as `lesion-shapes/1 · cube against 5 others`."""
    others = len(result.request.objective.terms) - 1
    more = f" against {others} others" if others else ""
    return f"{result.provenance.model}/{result.provenance.version} · {result.label}{more}"


def describe(term: method.ObjectiveTerm, figures: vis.TermEvaluation) -> str:
    """Say in plain language how strongly a unit fires on the final volume.

    Parameters
    ----------
    term : ObjectiveTerm
        The unit, from the request.
    figures : TermEvaluation
        Its figures, from the evaluation.

    Returns
    -------
    str
        One phrase.
    """
    text = f"activation {figures.activation:.2f}"
    if not figures.HasField("percentile"):
        return f"{text}; the model's bundle does not say how real images compare"
    text = f"{text}, {_rank(figures.percentile, term)}"
    if figures.HasField("real_p95"):
        # The rank is among all images, this figure among those of the class.
        images = f"those of class {unit_name(term)}" if term.HasField("class_logit") else "them"
        text += f" (95 % of {images} stay below {figures.real_p95:.2f})"
    return text


def _rank(share: float, term: method.ObjectiveTerm) -> str:
    # One position is held against the best one, for on an image the pattern may lie anywhere.
    than = "than at the channel's best position on" if term.HasField("neuron") else "than on"
    if share >= 1:
        return f"higher {than} every real held-out image"
    if share <= 0:
        return f"lower {than} every real held-out image"
    # Rounded down: 99.9 % is not all.
    return f"higher {than} {math.floor(share * 1000) / 10:g} % of real held-out images"


def _plain(message: Message) -> dict[str, Any]:
    """Return a message as JSON values, with zeros written out: channel 0 is a channel."""
    plain: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain
