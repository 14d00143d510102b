"""What TorchServe calls: predicts an image's class, or visualizes.

It runs what the native service's worker runs, in TorchServe's own worker process, so that the same request
gives the same volume. docs/how-to/serve-with-torchserve.md says how to call it, and what TorchServe lacks.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from google.rpc import status_pb2

from models import Bundle, ModelNotFound
from models.archive import read_archive
from neurofv.v1 import visualization_service_pb2 as vis
from service.device import choose_device
from service.errors import InvalidField, ServiceError
from service.jobs.admission import bare_request
from service.jobs.bundles import find_plan
from service.jobs.images import without_images
from service.observability.logs import configure_events
from service.settings import Settings
from service.status import reason_of, to_status
from service.torchserve.asked import Image, read_call
from service.torchserve.told import Stream, end_single, over_http, refusal
from service.volumes.nifti import VolumeFile
from service.volumes.subject import read_subject
from service.worker import memory
from service.worker.checkpoint import Checkpoint
from service.worker.model import LoadedModel, Models
from service.worker.run import Paused, Stopped, run

# TorchServe computes on for callers who have left: no run takes the worker for longer.
SECONDS = "NEUROFV_TORCHSERVE_SECONDS"
_MOST_SECONDS = 900.0
# A second message for Predictions over gRPC ends TorchServe's thread for this worker, which then never
# answers again. A handler cannot tell that method from StreamPredictions, so the caller has to say which.
STREAMED = "stream"
_NOT_STREAMED = (
    f"holds a request, whose events are streamed; call StreamPredictions, with the field named {STREAMED}"
)
_log = structlog.get_logger()


class Archive:
    """The one bundle of an archive, for those who look a request's models up.

    Parameters
    ----------
    bundle : Bundle
        Verified.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def get(self, name: str, version: int | None = None) -> Bundle:
        """Return the bundle.

        Raises
        ------
        models.ModelNotFound
            Another one is asked for.
        """
        manifest = self._bundle.manifest
        if name != manifest.name or version not in (None, manifest.version):
            raise ModelNotFound(name, version, [self._bundle.label])
        return self._bundle


class Handler:
    """One model in one TorchServe worker. Settings are the service's: `NEUROFV_*`.

    Attributes
    ----------
    model : LoadedModel
        Verified and loaded.
    """

    model: LoadedModel

    def initialize(self, context: Any) -> None:
        """Verify the archive and load its model.

        Parameters
        ----------
        context : ts.context.Context
            Where the archive was unpacked, and the GPU that TorchServe has given to this worker.

        Raises
        ------
        ModelError, ValueError
            It cannot be served; TorchServe marks the model as failed.
        """
        facts = context.system_properties
        if int(facts.get("batch_size") or 1) != 1:
            raise ValueError(f"batch_size is {facts['batch_size']}, but must be 1: events are streamed")
        self._settings = _settings(facts.get("gpu_id"))
        self._seconds = float(os.environ.get(SECONDS) or _MOST_SECONDS)
        if not self._seconds > 0:
            raise ValueError(f"{SECONDS} is {self._seconds:g}, but must be above 0")
        configure_events(self._settings.log_format, self._settings.log_level)
        # TorchServe would log what is raised, and with it names and values from the request.
        logging.getLogger("ts.service").addFilter(lambda record: not record.exc_info)
        torch.set_num_threads(self._settings.threads or len(os.sched_getaffinity(0)))
        device = choose_device(self._settings.device)
        if device.type == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        bundle = read_archive(Path(facts["model_dir"]))
        self._archive = Archive(bundle)
        self._models = Models(device)
        self.model = self._models.get(bundle)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer one call.

        Parameters
        ----------
        data : sequence of mapping
            The call's fields.
        context : ts.context.Context
            Where the answer goes.

        Returns
        -------
        list of bytes
            The only answer, or the last message of the stream.

        Raises
        ------
        ts.utils.util.PredictionException
            It was refused before anything was streamed.
        """
        if context.get_sequence_id(0):
            # StreamPredictions2: TorchServe 0.12 has failed the call already, and an answer to it would end
            # the thread that it has for this worker, for good. An answer that names no request is dropped.
            context.request_ids.clear()
            return [b""]
        stream: Stream | None = None
        try:
            asked = read_call(data[0])
            if isinstance(asked, Image):
                answer = self._predict(asked)
                context.set_response_content_type(0, "application/json")
                end_single(context)
                return [answer]
            if asked.field != STREAMED and not over_http(context):
                raise InvalidField(asked.field, _NOT_STREAMED)
            stream = Stream(context, asked.as_json)
            return [self._visualize(asked.request, stream)]
        except Exception as error:
            status = to_status(error)
        finally:
            memory.give_back()
        _log.info("call_failed", reason=reason_of(status))
        self._end_if_spoiled(status)
        if stream is None or not stream.begun:
            # Outside the handling of what failed, whose text TorchServe would log with this.
            raise refusal(status)
        return [stream.fail(status)]

    def _predict(self, image: Image) -> bytes:
        """Return the probability of each class."""
        bundle = self.model.bundle
        manifest = bundle.manifest
        if not manifest.classes:
            raise InvalidField(
                image.field, f"cannot be predicted: {bundle.label} has no classes; visualize it"
            )
        mask = bundle.prior().mask().numpy()
        volume = read_subject(image.data, manifest, mask, image.field, self._settings.max_image_bytes)
        probabilities = self.model.logits(volume).softmax(0).tolist()
        answer = {
            "model": manifest.name,
            "version": manifest.version,
            "model_digest": bundle.digest,
            "probabilities": dict(zip(manifest.classes, probabilities, strict=True)),
        }
        return json.dumps(answer).encode()

    def _visualize(self, asked: vis.VisualizeRequest, stream: Stream) -> bytes:
        """Run a request; tell its events but the last, which is returned."""
        request = bare_request(asked)
        if request.comparisons.transfer_model:
            rule = "names a second model, but an archive holds one; ask the native service"
            raise InvalidField("comparisons.transfer_model", rule)
        # TorchServe has the model's name from the call.
        request.model = request.model or self.model.bundle.manifest.name
        if request.stopping.seconds == 0 or request.stopping.seconds > self._seconds:
            request.stopping.seconds = self._seconds
        plan = find_plan(request, self._archive, self._settings)
        stream.accept(without_images(plan.request))
        model = self._models.get(plan.bundle, plan.control)
        for _, item in run([plan], model, self._settings, None, [lambda: False]):
            if isinstance(item, Exception):
                raise item
            assert not isinstance(item, Checkpoint | Paused | Stopped), "nobody has asked for it"
            event = item() if callable(item) else item
            if isinstance(event, VolumeFile):
                stream.volume(event)
            elif event.HasField("completed"):
                return stream.complete(event)
            else:
                stream.tell(event)
        raise AssertionError("a run ends with a result or an error")

    def _end_if_spoiled(self, status: status_pb2.Status) -> None:
        """End the process after a fault on a GPU that may spoil later calls; TorchServe starts another."""
        if self.model.device.type == "cuda" and reason_of(status) == ServiceError.reason:
            os._exit(1)


def _settings(gpu: int | None) -> Settings:
    """Return the settings, on the GPU that TorchServe has chosen unless a device is set."""
    settings = Settings()
    if gpu is None or settings.device != "auto" or not torch.cuda.is_available():
        return settings
    return Settings(device=f"cuda:{gpu}")
