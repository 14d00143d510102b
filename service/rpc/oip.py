"""GRPCInferenceService: models as plain networks, for clients of KServe and Triton."""

import asyncio
import hashlib
import re
from collections.abc import Callable

import grpc

from models import Bundle, ModelError, Repository
from service import __version__
from service.errors import InvalidField
from service.jobs.bundles import find_bundle
from service.jobs.desk import Desk
from service.oip import open_inference_pb2 as oip
from service.oip import open_inference_pb2_grpc
from service.oip.inference import Inference, read_whole
from service.oip.tensors import add_output, describe, outputs_of, split, wanted_outputs

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_LONGEST_ID = 256


class InferenceService(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Translates between the Open Inference Protocol and the bundles.

    Parameters
    ----------
    repository : Repository
        The bundles.
    desk : Desk
        Who records what is done.
    inference : Inference
        Who shows volumes to networks.
    is_ready : callable
        Whether a worker is there and the server does not shut down.
    """

    def __init__(
        self, repository: Repository, desk: Desk, inference: Inference, is_ready: Callable[[], bool]
    ) -> None:
        self._repository, self._desk = repository, desk
        self._inference, self._is_ready = inference, is_ready

    async def ServerLive(  # noqa: N802 (gRPC's name)
        self, request: oip.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> oip.ServerLiveResponse:
        """Answer."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802 (gRPC's name)
        self, request: oip.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> oip.ServerReadyResponse:
        """Tell whether volumes are taken."""
        return oip.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(  # noqa: N802 (gRPC's name)
        self, request: oip.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> oip.ModelReadyResponse:
        """Tell whether a model was verified; one that is not there is not ready, as with Triton."""
        number = _checked(request.name, request.version, "")
        try:
            await asyncio.to_thread(self._repository.get, request.name, number or None)
        except ModelError:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=True)

    async def ServerMetadata(  # noqa: N802 (gRPC's name)
        self, request: oip.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> oip.ServerMetadataResponse:
        """Tell what the server is."""
        return oip.ServerMetadataResponse(
            name="neurofv", version=__version__, extensions=["feature_visualization"]
        )

    async def ModelMetadata(  # noqa: N802 (gRPC's name)
        self, request: oip.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> oip.ModelMetadataResponse:
        """Describe a model's tensors."""
        number = _checked(request.name, request.version, "")
        bundle = await asyncio.to_thread(find_bundle, self._repository, request.name, number)
        entries = await asyncio.to_thread(self._repository.entries)
        ready = [entry.version for entry in entries if entry.ready and entry.name == request.name]
        return describe(bundle, ready)

    async def ModelInfer(  # noqa: N802 (gRPC's name)
        self, request: oip.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> oip.ModelInferResponse:
        """Show volumes to a model."""
        if len(request.id) > _LONGEST_ID:
            rule = f"has {len(request.id)} characters, but must have at most {_LONGEST_ID}; shorten it"
            raise InvalidField("id", rule)
        with self._inference.place():
            bundle, parts, digest = await read_whole(asyncio.to_thread(self._read, request))
            wanted = wanted_outputs(request, bundle)
            facts = {"digest": bundle.digest, "volumes": str(len(parts)), "input_sha256": digest}
            await self._desk.act("model.infer", f"models/{bundle.label}", **facts)
            found = await self._inference.infer(parts)
        manifest = bundle.manifest
        answer = oip.ModelInferResponse(
            model_name=manifest.name, model_version=str(manifest.version), id=request.id
        )
        for name in wanted:
            index = outputs_of(bundle).index(name)
            add_output(answer, name, found.outputs[index].shape, found.raw_output_contents[index])
        return answer

    def _read(self, request: oip.ModelInferRequest) -> tuple[Bundle, list[oip.ModelInferRequest], str]:
        """Find the model; return it, a request of each volume, and the SHA-256 of all their numbers."""
        number = _checked(request.model_name, request.model_version, "model_")
        bundle = find_bundle(self._repository, request.model_name, number)
        parts = split(request, bundle, self._desk.settings.max_batch)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.raw_input_contents[0])
        return bundle, parts, digest.hexdigest()


def _checked(name: str, version: str, prefix: str) -> int:
    """Return the version that a request names, 0 for the newest that is ready."""
    if not name:
        raise InvalidField(f"{prefix}name", "is empty; name a model as neurofv.v1 ListModels lists them")
    if version and not _VERSION.fullmatch(version):
        rule = f"is {version[:32]!r}, but must be a whole number, or empty for the newest"
        raise InvalidField(f"{prefix}version", rule)
    return int(version or 0)
