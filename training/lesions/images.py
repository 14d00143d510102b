"""Held-out images: every lesion in every brain, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from training import evaluate as whole
from training.lesions.brains import Brains
from training.lesions.catalog import BUILT_IN, Catalog
from training.lesions.shapes import paint


def draw_images(
    brains: Brains, draws: int, seed: int, catalog: Catalog = BUILT_IN
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Paint every class into every brain.

    Parameters
    ----------
    brains : Brains
        What to paint into.
    draws : int
        Images of each class and brain.
    seed : int
        The same seed paints the same images.
    catalog : Catalog
        The classes.

    Yields
    ------
    row : int
        Which brain.
    label : int
        Index into the catalog's classes.
    volume : numpy.ndarray
        float32, shape `(X, Y, Z)`.
    """
    for row, (brain, sites) in enumerate(zip(brains.volumes, brains.sites, strict=True)):
        rng = np.random.default_rng((seed, row))
        for _ in range(draws):
            for label, name in enumerate(catalog.classes):
                yield row, label, paint(brain, catalog.draw(name, sites, rng))


def evaluate(
    network: nn.Module,
    brains: Brains,
    draws: int,
    seed: int,
    show: bool = False,
    catalog: Catalog = BUILT_IN,
) -> whole.Trials:
    """Run a network on whole volumes of every class in every brain.

    Parameters
    ----------
    network : torch.nn.Module
        Takes `(1, 1, X, Y, Z)` and returns logits; it is put into evaluation mode.
    brains : Brains
        Held-out subjects.
    draws : int
        Images of each class and brain.
    seed : int
        Seed of the lesions.
    show : bool
        Show a progress bar.
    catalog : Catalog
        The classes.

    Returns
    -------
    training.evaluate.Trials
        One entry an image.
    """
    total = len(brains.volumes) * draws * len(catalog.classes)
    return whole.evaluate(network, draw_images(brains, draws, seed, catalog), catalog.classes, total, show)
