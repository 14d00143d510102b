"""Maps of a network: pictures of its classes, and the average attributions of the field's two favourites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from captum.attr import NoiseTunnel, Saliency
from monai.visualize import GradCAM
from torch import Tensor, nn

import engine
from models import Bundle

STEPS = 48
"""Of a picture; everything else is the engine's default."""
SAMPLES, DEVIATION = 8, 0.1
"""Noisy copies of SmoothGrad, and their noise in parts of the intensity range (Smilkov et al. 2017)."""
LAYER = "blocks.2.act"
"""The last convolutional block, as Selvaraju et al. (2017) choose for Grad-CAM."""
Maps = list[np.ndarray]


def pictures(bundle: Bundle) -> Maps:
    """Return what the optimizer changed in the reference brain, `(X, Y, Z)`, class by class."""
    facts, prior = bundle.manifest, bundle.prior()
    grid = engine.Grid(facts.input.shape, facts.input.voxel_size_mm)
    reference = torch.from_numpy(bundle.reference().get_fdata(dtype=np.float32))
    reference = reference.clamp(*facts.input.intensity_range)
    anatomy = engine.Anatomy(
        reference=reference,
        magnitude=prior.magnitude(grid.fourier_shape),
        intensities=(torch.tensor(prior.quantile_levels), prior.intensity_quantiles),
    )
    found: Maps = []
    for index in range(len(facts.classes)):
        terms = [
            engine.Term(
                engine.ClassLogit(facts.classifier_layer, each),
                sense=engine.Sense.MAXIMIZE if each == index else engine.Sense.MINIMIZE,
            )
            for each in range(len(facts.classes))
        ]
        terms.sort(key=lambda term: term.sense is engine.Sense.MINIMIZE)
        spec = engine.Spec(
            grid=grid,
            objective=engine.Objective(tuple(terms)),
            intensity_range=facts.input.intensity_range,
            anatomy=anatomy,
            steps=STEPS,
        )
        for event in engine.visualize(bundle.network(), spec):
            if isinstance(event, engine.Result):
                found.append((event.image.reshape(facts.input.shape) - reference).numpy())
    return found


def smooth_grad(network: nn.Module, volumes: Sequence[Tensor]) -> Maps:
    """Average SmoothGrad (Captum) over the images that get one answer; one map an answer."""
    tunnel = NoiseTunnel(Saliency(network))
    torch.manual_seed(0)

    def attribute(volume: Tensor, answer: int) -> Tensor:
        return tunnel.attribute(
            volume.clone().requires_grad_(), nt_type="smoothgrad", nt_samples=SAMPLES, stdevs=DEVIATION,
            target=answer,
        )  # fmt: skip

    return _averaged(network, volumes, attribute)


def grad_cam(network: nn.Module, volumes: Sequence[Tensor]) -> Maps:
    """Average Grad-CAM (MONAI) over the images that get one answer; one map an answer."""
    cam = GradCAM(network, target_layers=LAYER)
    return _averaged(network, volumes, lambda volume, answer: cam(volume, class_idx=answer))


def _averaged(network: nn.Module, volumes: Sequence[Tensor], attribute: object) -> Maps:
    found: dict[int, Maps] = {}
    for volume in volumes:
        answer = int(network(volume).argmax())
        values = np.asarray(attribute(volume, answer))  # type: ignore[operator]
        found.setdefault(answer, []).append(values[0, 0])
    return [np.mean(maps, axis=0) for maps in found.values()]
