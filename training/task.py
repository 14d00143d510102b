"""What a bundle is for: everything of its manifest and card that neither data nor training decide."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class Wording:
    """A card's sentences that belong to the task.

    Attributes
    ----------
    purpose : str
        What the network does; ends the sentence "A 3D convolutional network that ...".
    division : str
        How subjects came to train or be held out; ``{train}``, ``{test}`` and ``{seed}`` are filled in.
    evaluation : str
        What was measured on whom; ``{level}``, ``{method}`` and ``{chance}`` are filled in.
    limits : str
        What the figures do not say.
    images : str
        What the tables count.
    """

    purpose: str
    division: str
    evaluation: str
    limits: str
    images: str = "images"


@dataclass(frozen=True)
class Task:
    """One model that this package trains.

    Attributes
    ----------
    name : str
        Of the bundle.
    classes : tuple of str
        In the order of the logits.
    architecture : str
        Key of `models.architectures.REGISTRY`.
    hyperparameters : dict
        What the architecture receives.
    intended_use, not_for : str
        Purpose, and what it must not be used for.
    wording : Wording
        For the card.
    license : str
        Of the weights.
    packages : tuple of str
        Packages beyond torch, numpy and nibabel that decide the weights.
    version : int
        Of the bundle.
    """

    name: str
    classes: tuple[str, ...]
    architecture: str
    hyperparameters: dict[str, JsonValue]
    intended_use: str
    not_for: str
    wording: Wording
    license: str = "CC0-1.0"
    packages: tuple[str, ...] = ()
    version: int = 1
