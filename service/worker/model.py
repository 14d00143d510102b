"""A model that is ready to be optimized against, and what it is optimized on."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

import engine
from models import Bundle
from models.control import shuffle_weights
from service.jobs.plan import Plan
from service.real_images import SMALLEST_SPREAD, STATISTICS, ends, statistic_of
from service.settings import Settings
from service.volumes import brains
from service.volumes.canvas import Box
from service.worker.drawn import Drawn, Ends

# Networks with random weights that are kept. Every seed makes another one, and callers choose seeds.
_MOST_CONTROLS = 2


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
    trained : LoadedModel or None
        The model as it is, where this is the same with random weights.
    """

    bundle: Bundle
    network: engine.Prepared
    background: np.ndarray
    device: torch.device
    trained: "LoadedModel | None" = None

    @classmethod
    def load(cls, bundle: Bundle, device: torch.device) -> "LoadedModel":
        """Load a bundle's network and reference."""
        low, high = bundle.manifest.input.intensity_range
        background = np.clip(bundle.reference().get_fdata(dtype=np.float32), low, high)
        return cls(bundle, engine.Prepared(bundle.network().to(device)), background, device)

    def control(self, seed: int) -> "LoadedModel":
        """Return the same with its weights shuffled."""
        network = shuffle_weights(self.bundle.network(), seed).to(self.device)
        return replace(self, network=engine.Prepared(network), trained=self)

    @cached_property
    def drawn(self) -> Drawn:
        """How units behave on drawn brains; measured when it is first needed."""
        return Drawn(self.network.network, self.bundle, self.background, self.device)

    def measure(self, plan: Plan) -> Iterator[None]:
        """Measure what a control's activations are counted in, if a plan needs it; yields between passes."""
        units = (term.unit for item in plan.spec.items for term in item.objective.terms)
        if self.trained is not None and any(isinstance(unit, engine.Channel) for unit in units):
            yield from self.trained.drawn.measure()
            yield from self.drawn.measure()

    @cached_property
    def _ends(self) -> Ends:
        """Between which ends units behave on brains, as far as the prior knows their layers."""
        prior = self.bundle.prior()
        real = {
            (layer, statistic): ends(prior, layer, statistic)
            for layer in prior.layers
            for statistic in STATISTICS
        }
        if self.trained is None:
            return real
        own, trained = self.drawn.ends, self.trained.drawn.ends
        return {key: _widened(own[key], real[key], trained[key]) for key in real}

    def ends(self, unit: engine.Unit) -> np.ndarray | None:
        """Return between which ends each unit of a unit's layer behaves on brains.

        Parameters
        ----------
        unit : Unit
            What is driven.

        Returns
        -------
        ndarray, (2, units), or None
            The 5th and the 95th percentile on real images; with random weights, on drawn brains, widened as
            if these differed as much as real ones do. None if the prior does not know the layer.
        """
        if not isinstance(unit, engine.Channel):
            return None
        return self._ends.get((unit.layer, statistic_of(unit)))

    def in_spreads(self, objective: engine.Objective) -> engine.Objective:
        """Return an objective whose activations are counted in spreads: a control's are its own."""
        if self.trained is None:
            return objective
        terms = []
        for term in objective.terms:
            found = self.ends(term.unit)
            if found is not None and isinstance(term.unit, engine.Channel):
                low, high = found[:, term.unit.channel]
                term = replace(term, spread=float(high - low) if high - low > SMALLEST_SPREAD else 1.0)
            terms.append(term)
        return replace(objective, terms=tuple(terms))

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
        """Return an objective with what the model adds to it: spreads, and the subject's activations.

        Parameters
        ----------
        plan : Plan
            Whose objective it is.
        objective : engine.Objective
            As it was planned.
        box : Box or None
            Where the subject's image is read; None for the whole grid.
        """
        return self.with_subject(plan, self.in_spreads(objective), box)

    def with_subject(
        self, plan: Plan, objective: engine.Objective, box: Box | None = None
    ) -> engine.Objective:
        """Return an objective with the subject's activations alone; as `with_targets`."""
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


def _widened(own: np.ndarray, real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Move a control's ends on drawn brains as far apart as a trained layer's are on real images."""
    low, high = own
    on_real, on_drawn = (float(np.median(ends[1] - ends[0])) for ends in (real, drawn))
    wider = on_real / on_drawn if min(on_real, on_drawn) > SMALLEST_SPREAD else 1.0
    return np.stack([low, low + wider * (high - low)])


def _on_box(volume: np.ndarray, box: Box) -> torch.Tensor:
    return torch.from_numpy(box.cut(volume).copy())


class Models:
    """The models that a process has loaded.

    Parameters
    ----------
    device : torch.device
        Where networks live.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._trained: dict[str, LoadedModel] = {}
        self._controls: OrderedDict[tuple[str, int], LoadedModel] = OrderedDict()

    def get(self, bundle: Bundle, control: int | None = None) -> LoadedModel:
        """Return a model, loaded when it is first asked for.

        Parameters
        ----------
        bundle : Bundle
            What it is.
        control : int, optional
            Seed with which its weights are shuffled. Only the controls that were asked for last are kept.
        """
        if bundle.digest not in self._trained:
            self._trained[bundle.digest] = LoadedModel.load(bundle, self._device)
        trained = self._trained[bundle.digest]
        if control is None:
            return trained
        key = bundle.digest, control
        if key not in self._controls:
            self._controls[key] = trained.control(control)
            while len(self._controls) > _MOST_CONTROLS:
                self._controls.popitem(last=False)
        self._controls.move_to_end(key)
        return self._controls[key]
