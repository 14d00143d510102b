"""ModelService: what can be visualized."""

import asyncio

import grpc
import numpy as np

from models import Repository
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import model_service_pb2_grpc
from service.jobs.bundles import find_bundle


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Lists and describes bundles.

    Parameters
    ----------
    repository : Repository
        The bundles.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def ListModels(  # noqa: N802 (gRPC's name)
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        """List every bundle, also those that are not ready."""
        entries = await asyncio.to_thread(self._repository.entries)
        summaries = [
            pb.ModelSummary(name=entry.name, version=entry.version, ready=entry.ready, reason=entry.reason)
            for entry in entries
        ]
        return pb.ListModelsResponse(models=summaries)

    async def GetModel(  # noqa: N802 (gRPC's name)
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelResponse:
        """Describe one model."""
        return pb.GetModelResponse(model=await asyncio.to_thread(self._describe, request))

    def _describe(self, request: pb.GetModelRequest) -> pb.Model:
        bundle = find_bundle(self._repository, request.name, request.version)
        manifest, space = bundle.manifest, bundle.manifest.input
        low, high = space.intensity_range
        return pb.Model(
            name=manifest.name,
            version=manifest.version,
            digest=bundle.digest,
            input=pb.InputSpace(
                shape=space.shape,
                voxel_size_mm=space.voxel_size_mm,
                affine=np.asarray(space.affine).ravel().tolist(),
                orientation=space.orientation,
                space=space.space,
                intensity_low=low,
                intensity_high=high,
            ),
            classes=manifest.classes,
            classifier_layer=manifest.classifier_layer,
            layers=[
                pb.Layer(
                    name=layer.name,
                    type=layer.type,
                    channels=layer.channels,
                    output_shape=layer.output_shape,
                    stride=layer.stride,
                    receptive_field_voxels=layer.receptive_field,
                    receptive_field_mm=layer.receptive_field_mm,
                    whole_input=layer.whole_input,
                )
                for layer in bundle.layers()
            ],
            card=bundle.card(),
            license=manifest.license,
        )
