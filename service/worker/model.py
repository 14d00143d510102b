"""A model that is ready to be optimized against, and what it is optimized on."""

from dataclasses import dataclass

import numpy as np
import torch

import engine
from models import Bundle
from service.jobs.plan import Plan
from service.settings import Settings
from service.volumes import brains
from service.volumes.canvas import Box


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be optimized against.

    Attributes
    ----------
    bundle : Bundle
        What it is.
    network : engine.Prepared
        On the device.
    background : ndarray
        The reference brain on the model's grid, model units.
    device : torch.device
        Where the network lives.
    """

    bundle: Bundle
    network: engine.Prepared
    background: np.ndarray
    device: torch.device

    @classmethod
    def load(cls, bundle: Bundle, device: torch.device) -> "LoadedModel":
        """Load a bundle's network and reference."""
        low, high = bundle.manifest.input.intensity_range
        background = np.clip(bundle.reference().get_fdata(dtype=np.float32), low, high)
        return cls(bundle, engine.Prepared(bundle.network().to(device)), background, device)

    def logits(self, volume: np.ndarray) -> torch.Tensor:
        """Return what the network says of each class.

        Parameters
        ----------
        volume : ndarray, (X, Y, Z), float32
            On the whole grid, model units.

        Returns
        -------
        Tensor, (classes,)
            Before the softmax.
        """
        layer = self.bundle.manifest.classifier_layer
        with torch.no_grad():
            read = self.network.reader([layer])(torch.from_numpy(volume)[None, None].to(self.device))
        return read[layer][0].flatten()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of classes from their logits.

        Parameters
        ----------
        logits : Tensor, (..., classes)
            Such as `logits` gives.

        Returns
        -------
        Tensor, (..., classes)
            They add up to 1 only where classes exclude each other.
        """
        if self.bundle.manifest.probabilities == "sigmoid":
            return logits.sigmoid()
        return logits.softmax(-1)

    def surroundings(self, plan: Plan) -> np.ndarray:
        """Return what shows outside the canvas: the person's image if it starts there, or the reference."""
        on_subject = isinstance(plan.spec.start, engine.SubjectImage) and plan.images.subject is not None
        return plan.images.subject if on_subject else self.background  # type: ignore[return-value]

    def home(self, plan: Plan) -> np.ndarray:
        """Return the volume on the whole grid before the first step, without noise."""
        around = self.surroundings(plan)
        begin = plan.spec.start.begin(self.anatomy(plan), plan.spec.intensity_range)
        return plan.box.paste(np.broadcast_to(begin.numpy(), plan.box.shape), around)

    def anatomy(self, plan: Plan, settings: Settings | None = None) -> engine.Anatomy:
        """Return what is known of brains on the plan's box.

        Parameters
        ----------
        plan : Plan
            What is run.
        settings : Settings, optional
            The server's, which says where real brains lie; without it brains are left out.
        """
        space, prior, box = self.bundle.manifest.input, self.bundle.prior(), plan.box
        levels = torch.tensor(prior.quantile_levels, dtype=torch.float32)
        subject = plan.images.subject
        return engine.Anatomy(
            reference=_on_box(self.background, box),
            mask=_on_box(prior.mask().numpy(), box),
            magnitude=prior.magnitude(plan.spec.grid.fourier_shape),
            intensities=(levels, prior.intensity_quantiles),
            subject=None if subject is None else _on_box(subject, box),
            brains=None if settings is None else self._brains(plan, settings),
            window=torch.from_numpy(box.window(space)),
        )

    def with_targets(
        self, plan: Plan, objective: engine.Objective, box: Box | None = None
    ) -> engine.Objective:
        """Return an objective with the activations of the subject's image on a box, or on the whole grid."""
        layers = {
            term.unit.layer for term in objective.terms if isinstance(term.unit, engine.SubjectActivations)
        }
        if not layers or plan.images.subject is None:
            return objective
        image = plan.images.subject if box is None else box.cut(plan.images.subject)
        volume = torch.from_numpy(image.copy())[None, None].to(self.device)
        with torch.no_grad():
            return objective.with_targets(
                self.network.reader(layers, objective.behind_nonlinearities)(volume)
            )

    def _brains(self, plan: Plan, settings: Settings) -> torch.Tensor | None:
        patch = plan.spec.parameterization
        if not isinstance(patch, engine.Patch):
            return None
        if patch.real:
            whole = brains.real(settings.brains, self.bundle, settings.max_image_bytes)
        else:
            whole = brains.drawn(self.bundle, self.background, plan.spec.seed)
        return torch.from_numpy(np.stack([plan.box.cut(brain) for brain in whole]))


def _on_box(volume: np.ndarray, box: Box) -> torch.Tensor:
    return torch.from_numpy(box.cut(volume).copy())
