"""Figures that judge a finished volume, before any transform.

A picture that fires a unit may still be noise that fires it at one exact
position, lie at the ends of the intensity range, look like no brain, or fire
every other unit as well. Each function here measures one of these.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.grid import Grid, radial_shells
from engine.network import Prepared, prepared
from engine.objective import Channel, Objective
from engine.roughness import gradient_length
from engine.transform import Draw, Transforms, apply

BATCH = 8
"""Volumes that are read at once."""
COPIES = 64
"""Copies in which `held_out` reads a volume."""
_SEED = int.from_bytes(b"neurofv", "big")
# No coefficient of a brain is as small: its logarithm stands for that of zero.
_SILENT = 1e-8
_NEAR_BOUND = 0.01
_LEAST_OVERLAP = 0.5

HELD_OUT = Transforms(jitter_mm=6.0, rotation_degrees=15.0, scale=0.1)
"""The transforms of `held_out`: a head moves as much between two scans."""


def readings(network: nn.Module | Prepared, objective: Objective, volumes: Tensor) -> Tensor:
    """Read every term's unit on volumes, at most eight at a time and without gradients.

    Parameters
    ----------
    network, objective : nn.Module (or Prepared) and Objective
        The network, which is left as found, and the terms whose units are read.
    volumes : Tensor, (n, 1, *shape)
        The volumes, model units.

    Returns
    -------
    Tensor, (terms, n)
        Activations, unweighted.

    Raises
    ------
    UnknownLayer, UnitOutOfRange
        A unit's layer is not in the network, or the unit not in its layer.
    """
    return _read(network, objective, volumes.split(BATCH))


def held_out(
    network: nn.Module | Prepared,
    objective: Objective,
    image: Tensor,
    grid: Grid,
    intensity_range: tuple[float, float],
    transforms: Transforms = HELD_OUT,
    count: int = COPIES,
    seed: int = _SEED,
) -> Tensor:
    """Read every term's unit on randomly transformed copies of a volume.

    Transforms drawn anew, from a seed that no run is likely to have used, tell
    a picture that fires the unit wherever it lies from one that was fitted to
    the transforms of its own steps.

    Parameters
    ----------
    network, objective : nn.Module (or Prepared) and Objective
        The network, which is left as found, and the terms whose units are read.
    image : Tensor, (*shape)
        The volume, model units.
    grid : Grid
        Its grid.
    intensity_range : tuple of float
        Lower and upper end of the intensities, model units.
    transforms : Transforms
        Ranges of the transforms, as at a run's last step.
    count, seed : int
        How many copies; the seed of their draws.

    Returns
    -------
    Tensor, (terms, count)
        Activations, unweighted. The first copies are the same whatever the count.
    """

    def drawn() -> list[Draw]:
        generator = torch.Generator().manual_seed(seed)
        return [transforms.draw(grid, generator, 1.0) for _ in range(count)]

    # The volumes of a batch are judged under the same draws. Those with noise would take its memory.
    light = not (transforms.noise or transforms.bias_field)
    every = grid.once(("held out", transforms, count, seed), drawn) if light else drawn()

    def copies() -> Iterable[Tensor]:
        for first in range(0, count, BATCH):
            draws = every[first : first + BATCH]
            yield apply(image.detach().expand(len(draws), 1, *grid.shape), draws, grid, intensity_range)

    return _read(network, objective, copies())


def spectrum_distance(image: Tensor, magnitude: Tensor, grid: Grid) -> float:
    """Tell how far a volume's spectrum lies from that of real brains, in decades.

    The root mean square, over shells of radial frequency, of the difference
    between the decadic logarithms of the shells' mean magnitudes. A shell is
    as wide as one cycle along the grid's longest edge. The constant part is
    left out; a shell's mean below 1e-8 counts as 1e-8.

    Parameters
    ----------
    image : Tensor, (*shape)
        The volume, model units.
    magnitude : Tensor, (*shape[:-1], shape[-1] // 2 + 1)
        Mean of `|rfftn(brain, norm="ortho")|` over real brains of the same shape, without padding.
    grid : Grid
        Their grid.

    Returns
    -------
    float
        Decades: 1 for a volume whose magnitudes are all ten times too large.

    Raises
    ------
    ValueError
        `magnitude` has not the shape of the unpadded half spectrum.
    """
    found = torch.fft.rfftn(image.detach().double(), norm="ortho").abs()
    if found.shape != magnitude.shape:
        raise ValueError(
            f"magnitude has shape {tuple(magnitude.shape)}, but the volume's half spectrum has "
            f"{tuple(found.shape)}; give the prior's magnitude at the grid's shape, without padding"
        )
    shells, shares = (part.to(found.device).flatten() for part in radial_shells(grid.shape, grid.voxel_size))
    total = torch.bincount(shells, shares)
    means = [torch.bincount(shells, shares * part.flatten()) for part in (found, magnitude.to(found))]
    # Shell 0 holds the constant part alone.
    filled = (total > 0) & (torch.arange(len(total), device=total.device) > 0)
    mine, prior = ((part[filled] / total[filled]).clamp_min(_SILENT).log10() for part in means)
    return (mine - prior).square().mean().sqrt().item()


def saturated_share(
    image: Tensor, intensity_range: tuple[float, float], among: Tensor | None = None
) -> float:
    """Return the share of voxels within 1 % of the intensity range from either of its ends.

    Parameters
    ----------
    image : Tensor, (*shape)
        The volume, model units.
    intensity_range : tuple of float
        Lower and upper end of the intensities, model units.
    among : Tensor or None, (*shape), bool
        The voxels that count; None for all.

    Raises
    ------
    ValueError
        `among` holds no voxel.
    """
    voxels = image if among is None else image[among.to(image.device)]
    if not voxels.numel():
        raise ValueError("among holds no voxel; give a mask with at least one, or None for all voxels")
    low, high = intensity_range
    margin = _NEAR_BOUND * (high - low)
    return ((voxels <= low + margin) | (voxels >= high - margin)).double().mean().item()


def total_variation(image: Tensor, grid: Grid) -> float:
    """Return `gradient_length` of one volume, `(*shape)`: model units per mm."""
    return gradient_length(image.detach()[None, None], grid).item()


def layer_readings(
    network: nn.Module | Prepared, unit: Channel, image: Tensor, behind_nonlinearities: bool = False
) -> Tensor:
    """Read every channel of a unit's layer as the unit itself is read.

    Parameters
    ----------
    network : nn.Module or Prepared
        The network; it is left as found.
    unit : Channel
        A channel, a neuron or a class logit.
    image : Tensor, (*shape)
        The volume, model units.
    behind_nonlinearities : bool
        Whether units of a non-linearity are read behind it.

    Returns
    -------
    Tensor, (channels,)
        Each channel's mean, its activation at the neuron's position, or each logit.
    """
    with torch.no_grad():
        (said,) = prepared(network).reader([unit.layer], behind_nonlinearities)(image[None, None]).values()
        return channel_readings(unit, said)


def channel_readings(unit: Channel, said: Tensor) -> Tensor:
    """Return what `layer_readings` does, `(channels,)`, of what the layer says, `(1, channels, *spatial)`."""
    # Channels in the place of volumes are read all at once, as they lie in memory.
    return replace(unit, channel=0).read(said.transpose(0, 1))


def answers(network: nn.Module | Prepared, objective: Objective, image: Tensor) -> Mapping[str, Tensor]:
    """Read every layer of an objective once, without gradients.

    Parameters
    ----------
    network, objective : nn.Module (or Prepared) and Objective
        The network, which is left as found, and the terms whose layers are read.
    image : Tensor, (*shape)
        The volume, model units.

    Returns
    -------
    dict of str to Tensor
        By layer, `(1, channels, *spatial)`: what `Objective.read` and `channel_readings` take.
    """
    with torch.no_grad():
        reader = prepared(network).reader(objective.layers, objective.behind_nonlinearities)
        return reader(image[None, None])


def selectivity(activation: Tensor, real_low: Tensor | None, real_high: Tensor | None, channel: int) -> int:
    """Rank a channel among those of its layer.

    Channels differ in scale, so each is counted from its low on real images,
    in widths of its activations there; one that never varies there is counted
    in the median width of the others. Without real images they are compared
    as they are.

    Parameters
    ----------
    activation : Tensor, (channels,)
        What every channel says, from `layer_readings`.
    real_low, real_high : Tensor or None, (channels,)
        A low (or middle) and a high quantile of each channel on real images.
    channel : int
        The channel that the picture was made for.

    Returns
    -------
    int
        1 for the strongest; channels that are equally strong share the better rank.
    """
    strength = activation.detach().double()
    if real_low is not None and real_high is not None:
        low, high = real_low.to(strength), real_high.to(strength)
        width, varies = high - low, high > low
        common = width[varies].median() if varies.any() else torch.ones_like(width[0])
        strength = (strength - low) / torch.where(varies, width, common)
    return 1 + int((strength > strength[channel]).sum())


def agreement(first: Tensor, second: Tensor) -> tuple[float, tuple[int, ...]]:
    """Compare two volumes after the shift that fits best.

    The largest normalized cross-correlation over all shifts: at each, the
    correlation of the voxels on which the volumes overlap, so that no value has
    to be invented outside them. Shifts that leave less than half of either
    volume's squared deviation from its mean in the overlap do not count.

    Parameters
    ----------
    first, second : Tensor, (*shape)
        The volumes.

    Returns
    -------
    float
        From -1 to 1: 1 for a moved copy whose content does not leave the grid; 0 if a volume is constant.
    tuple of int
        The shift, voxels, that lays `second` on `first`.

    Raises
    ------
    ValueError
        The volumes differ in shape.
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"the volumes have shapes {shapes}; resample one to the grid of the other")
    if first.min() == first.max() or second.min() == second.max():
        return 0.0, (0,) * first.ndim
    # Without their means the sums of squares keep their digits.
    one, other = (image - image.mean() for image in (first.detach().double(), second.detach().double()))
    turned = other.flip(tuple(range(other.ndim)))
    count = _overlap_sums(torch.ones_like(one))
    totals = [_overlap_sums(image) for image in (one, turned)]
    spreads = [
        _overlap_sums(image.square()) - total.square() / count
        for image, total in zip((one, turned), totals, strict=True)
    ]
    shared = _correlate(one, other) - totals[0] * totals[1] / count
    found = shared / (spreads[0] * spreads[1]).abs().sqrt()
    for image, spread in zip((one, other), spreads, strict=True):
        found[spread < _LEAST_OVERLAP * image.square().sum()] = -math.inf
    best = torch.unravel_index(found.argmax(), found.shape)
    shift = tuple(int(index) - size + 1 for index, size in zip(best, first.shape, strict=True))
    return min(1.0, found[best].item()), shift


def _read(network: nn.Module | Prepared, objective: Objective, batches: Iterable[Tensor]) -> Tensor:
    reader = prepared(network).reader(objective.layers, objective.behind_nonlinearities)
    with torch.no_grad():
        return torch.cat([objective.read(reader(batch)) for batch in batches], dim=1)


def _overlap_sums(image: Tensor) -> Tensor:
    """Sum an image over what it shares with a copy of its grid, for every shift of that, `(*(2 n - 1))`."""
    for axis, size in enumerate(image.shape):
        head = image.cumsum(axis).narrow(axis, 0, size - 1)
        tail = image.flip(axis).cumsum(axis).flip(axis)
        image = torch.cat([head, tail], axis)
    return image


def _correlate(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of `one(x + shift) other(x)` for every shift, `(*(2 n - 1))`, from the lowest up."""
    room = [2 * size for size in one.shape]
    product = torch.fft.rfftn(one, s=room) * torch.fft.rfftn(other, s=room).conj()
    found = torch.fft.irfftn(product, s=room)
    for axis, size in enumerate(one.shape):
        found = found.roll(size - 1, axis).narrow(axis, 0, 2 * size - 1)
    return found
