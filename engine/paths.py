"""Whether a picture takes the way of real images through a network.

A picture and the real images of its class end in the same answer; that says
nothing about the layers between. Geirhos, Zimmermann, Bilodeau, Brendel and Kim
("Don't trust your eyes: on the (un)reliability of feature visualizations",
ICML 2024, sanity check) compare them layer by layer.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.network import Prepared, Reader, prepared

_GOLDEN = (math.sqrt(5) - 1) / 2
# Anchors nearer than this are no scale: ranks of some 50,000 thinned values err by about 0.005.
_LEAST_RANGE = 0.02


def spearman(first: Tensor, second: Tensor) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    Parameters
    ----------
    first, second : Tensor, (n,)
        The values.

    Returns
    -------
    float
        From -1 to 1; 0 if all values of either are equal.
    """
    return float(_standard_ranks(first) @ _standard_ranks(second))


def path_similarity(
    network: nn.Module | Prepared,
    layers: Sequence[str],
    image: Tensor,
    same: Sequence[Tensor],
    other: Sequence[Tensor],
    most: int = 50_000,
) -> dict[str, float]:
    """Compare a picture's activations with those of real images, layer by layer.

    The mean rank correlation with real images of the same class, on a scale on
    which two different images of that class have 1 on average, and one of that
    class and one of another have 0.

    Parameters
    ----------
    network : nn.Module or Prepared
        The network; it is left as found.
    layers : sequence of str
        Names of the layers. Non-linearities are read behind, as later layers see them.
    image : Tensor, (*shape)
        The picture, model units.
    same, other : sequence of Tensor, (*shape)
        Real images of the picture's class, at least two, and of other classes, at least one.
    most : int
        Activations of a layer that are compared at most: one of each of so many equal stretches.

    Returns
    -------
    dict of str to float
        By layer, in the order given. A layer that tells the classes apart by less than 0.02 is left out.

    Raises
    ------
    ValueError
        There are too few real images.
    UnknownLayer
        A name is not a layer of the network.
    """
    if len(same) < 2 or not other:
        raise ValueError(
            f"same has {len(same)} images and other {len(other)}; give at least two real images of the "
            "picture's class and one of another"
        )
    reader = prepared(network).reader(layers, behind_nonlinearities=True)
    with torch.no_grad():
        said = [_thinned(reader, one.to(image), most) for one in (image, *same, *other)]
    found = {layer: _normalized([each[layer] for each in said], len(same)) for layer in layers}
    return {layer: share for layer, share in found.items() if share is not None}


def _thinned(reader: Reader, image: Tensor, most: int) -> dict[str, Tensor]:
    """Return some of each layer's activations on one image, `(min(n, most),)`, on the CPU."""
    flat = {layer: answer.flatten() for layer, answer in reader(image[None, None]).items()}
    return {
        layer: values[_places(len(values), most).to(values.device)].cpu() for layer, values in flat.items()
    }


def _places(count: int, most: int) -> Tensor:
    """Return one fixed index in each of `most` equal stretches, or every index if there are no more.

    Steps of a fixed length that is a multiple of a row would stay in one column of the volume, such as in
    the background at its edge; so the place within the stretch moves on by the golden ratio.
    """
    if count <= most:
        return torch.arange(count)
    stretch = torch.arange(most, dtype=torch.float64)
    return ((stretch + (stretch * _GOLDEN) % 1) * (count / most)).long().clamp_max(count - 1)


def _normalized(values: Sequence[Tensor], same: int) -> float | None:
    """Return the similarity of the first to the next `same` between the anchors, or None without a scale."""
    ranks = torch.stack([_standard_ranks(each) for each in values])
    picture, alike, unlike = ranks[0], ranks[1 : 1 + same], ranks[1 + same :]
    pairs = alike @ alike.T
    top = (pairs.sum() - pairs.trace()) / (same * (same - 1))
    bottom = (alike @ unlike.T).mean()
    if top - bottom < _LEAST_RANGE:
        return None
    return float(((alike @ picture).mean() - bottom) / (top - bottom))


def _standard_ranks(values: Tensor) -> Tensor:
    """Return ranks of mean 0 and length 1, `(n,)`, float64: their product is the correlation."""
    _, place, counts = values.detach().unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[place]
    ranks = ranks - ranks.mean()
    length = ranks.norm()
    return ranks / length if len(counts) > 1 else torch.zeros_like(ranks)
