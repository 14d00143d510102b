"""Fair baselines: what a competent user of the peers' methods would run on a volume.

Nothing here uses the project's engine. The numbers are those that the peers
publish; each is named where it stands.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Range = tuple[float, float]
_PAD, _FIRST_JITTER, _LAST_JITTER = 12, 8, 4  # Lucid's and Lucent's standard transforms, voxels
_SCALES = [1 + (index - 5) / 50 for index in range(11)]
_ANGLES = [*range(-10, 11), *[0] * 5]


class _Stop(Exception):
    """The target has answered."""


@dataclass(frozen=True)
class Run:
    """One picture: a unit and the seed of its draws.

    Attributes
    ----------
    channel, seed : int
        The channel of the layer, and the seed.
    """

    channel: int
    seed: int


def b0(
    network: nn.Module,
    layer: str,
    runs: Sequence[Run],
    shape: Sequence[int],
    bounds: Range,
    steps: int = 1500,
    truncate: bool = False,
    report: Callable[[], None] = lambda: None,
) -> Tensor:
    """Run B0, "as published": 3DKernelVisualizer's settings on one channel.

    Voxels of deviation 0.01, a sigmoid, one trilinear warp with a shift of 0 to
    7 voxels and a scale of 0.9 to 1.1 about the corner, Adam at 0.05, 1500 steps.

    Parameters
    ----------
    network : nn.Module
        Takes `(n, 1, *shape)`.
    layer : str
        The target.
    runs : sequence of Run
        The pictures; each draws from its own seed, so that a batch gives what single calls give.
    shape : sequence of int
        Voxels.
    bounds : tuple of float
        Intensity range.
    steps : int
        Steps of Adam.
    truncate : bool
        Whether the network's tail is left out: the same pictures, sooner.
    report : callable
        Called after each step.

    Returns
    -------
    Tensor, (runs, *shape)
        The untransformed volumes.
    """
    draws = [np.random.default_rng(run.seed) for run in runs]
    start = [torch.from_numpy(draw.normal(0, 0.01, tuple(shape))).float()[None] for draw in draws]
    free = torch.stack(start).requires_grad_()

    def image() -> Tensor:
        return _to_range(free, bounds)

    def view(volume: Tensor) -> Tensor:
        return _corner_warp(volume, draws)

    return _optimize(network, layer, runs, free, image, view, steps, truncate, report)


def b1(
    network: nn.Module,
    layer: str,
    run: Run,
    shape: Sequence[int],
    bounds: Range,
    decay: float,
    steps: int = 512,
    report: Callable[[], None] = lambda: None,
) -> Tensor:
    """Run B1, the competent port of Lucent 0.1.8 to volumes, one unit a call, as wasteful as Lucent.

    A spectrum of deviation 0.01 scaled by 1 / frequency^decay, divided by 4,
    sigmoid; pad 12, jitter 8, scale 0.9 to 1.1, three rotations within 10
    degrees, jitter 4, cut back to size; Adam at 0.05. The weights take
    gradients, every module is hooked, the whole network runs.

    Parameters
    ----------
    network, layer, shape, bounds, steps, report
        As in `b0`.
    run : Run
        The picture.
    decay : float
        1.0 is the literal port, 1.5 the one that fits three dimensions.

    Returns
    -------
    Tensor, (*shape)
        The untransformed volume.
    """
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: kept.__setitem__(name, output))
        for name, module in network.named_modules()
    ]
    gradients = [weight.grad for weight in network.parameters()]
    draw = np.random.default_rng(run.seed)
    free = _spectrum(draw, shape)[None].requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.05)
    try:
        for _ in range(steps):
            optimizer.zero_grad()
            # The scale is made anew each step, as the port does.
            volume = _from_spectrum(free, _scale(shape, decay), shape, bounds)
            network(_lucid_view(volume, draw, shape, bounds))
            (-kept[layer][:, run.channel].mean()).backward()
            optimizer.step()
            report()
    finally:
        for handle in handles:
            handle.remove()
        for weight, gradient in zip(network.parameters(), gradients, strict=True):
            weight.grad = gradient
    with torch.no_grad():
        return _from_spectrum(free, _scale(shape, decay), shape, bounds)[0, 0]


def b2(
    network: nn.Module,
    layer: str,
    runs: Sequence[Run],
    shape: Sequence[int],
    bounds: Range,
    decay: float,
    steps: int = 512,
    truncate: bool = False,
    report: Callable[[], None] = lambda: None,
) -> Tensor:
    """Run B2, the strong port: B1's pictures, frozen, one hook, constants made once, in a batch.

    Parameters
    ----------
    network, layer, runs, shape, bounds, steps, truncate, report
        As in `b0`.
    decay : float
        As in `b1`.

    Returns
    -------
    Tensor, (runs, *shape)
        The untransformed volumes.
    """
    draws = [np.random.default_rng(run.seed) for run in runs]
    free = torch.stack([_spectrum(draw, shape) for draw in draws]).requires_grad_()
    scale = _scale(shape, decay)

    def image() -> Tensor:
        return _from_spectrum(free, scale, shape, bounds)

    def view(volume: Tensor) -> Tensor:
        views = [_lucid_view(one[None], draw, shape, bounds) for one, draw in zip(volume, draws, strict=True)]
        return torch.cat(views)

    return _optimize(network, layer, runs, free, image, view, steps, truncate, report)


def _optimize(
    network: nn.Module,
    layer: str,
    runs: Sequence[Run],
    free: Tensor,
    image: Callable[[], Tensor],
    view: Callable[[Tensor], Tensor],
    steps: int,
    truncate: bool,
    report: Callable[[], None],
) -> Tensor:
    optimizer = torch.optim.Adam([free], lr=0.05)
    with _target(network, layer, truncate) as read:
        for _ in range(steps):
            answer = read(view(image()))
            chosen = torch.stack([answer[index, run.channel].mean() for index, run in enumerate(runs)])
            (free.grad,) = torch.autograd.grad(-chosen.sum(), free)
            optimizer.step()
            report()
    with torch.no_grad():
        return image()[:, 0]


@contextmanager
def _target(network: nn.Module, layer: str, truncate: bool) -> Iterator[Callable[[Tensor], Tensor]]:
    """Freeze the network and hook the target alone."""
    flags = [weight.requires_grad for weight in network.parameters()]
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        kept.append(output)
        if truncate:
            raise _Stop

    def read(volume: Tensor) -> Tensor:
        kept.clear()
        with suppress(_Stop):
            network(volume)
        return kept[0]

    handle = network.get_submodule(layer).register_forward_hook(keep)
    try:
        network.requires_grad_(False)
        yield read
    finally:
        handle.remove()
        for weight, flag in zip(network.parameters(), flags, strict=True):
            weight.requires_grad_(flag)


def _to_range(unbounded: Tensor, bounds: Range) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.sigmoid(unbounded)


def _spectrum(draw: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Draw the coefficients of one picture, `(1, D, H, W // 2 + 1, 2)`."""
    size = (1, *shape[:-1], shape[-1] // 2 + 1, 2)
    return torch.from_numpy(draw.normal(0, 0.01, size)).float()


def _scale(shape: Sequence[int], decay: float) -> Tensor:
    """Return 1 / max(frequency, 1 / longest edge)^decay, frequencies in cycles per voxel."""
    axes = [np.fft.fftfreq(size) for size in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    square = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    return torch.from_numpy(1 / np.maximum(np.sqrt(square), 1 / max(shape)) ** decay).float()


def _from_spectrum(free: Tensor, scale: Tensor, shape: Sequence[int], bounds: Range) -> Tensor:
    spectrum = torch.view_as_complex(free) * scale
    image = torch.fft.irfftn(spectrum, s=tuple(shape), dim=(-3, -2, -1), norm="ortho")
    return _to_range(image / 4, bounds)


def _lucid_view(volume: Tensor, draw: np.random.Generator, shape: Sequence[int], bounds: Range) -> Tensor:
    """Apply Lucid's standard transforms, in its order and numbers, to one volume `(1, 1, *shape)`."""
    view = functional.pad(volume, (_PAD,) * 6, value=sum(bounds) / 2)
    view = _jitter(view, _FIRST_JITTER, draw)
    scale = float(draw.choice(_SCALES))
    view = functional.interpolate(
        view, scale_factor=scale, mode="trilinear", align_corners=False, recompute_scale_factor=True
    )
    view = _rotate(view, np.radians(draw.choice(_ANGLES, size=3)))
    view = _jitter(view, _LAST_JITTER, draw)
    return _cut(view, shape, sum(bounds) / 2)


def _jitter(view: Tensor, amount: int, draw: np.random.Generator) -> Tensor:
    """Cut a random crop that is `amount` voxels smaller."""
    for axis, first in zip((-3, -2, -1), draw.integers(0, amount + 1, size=3), strict=True):
        view = view.narrow(axis, int(first), view.shape[axis] - amount)
    return view


def _rotate(view: Tensor, angles: np.ndarray) -> Tensor:
    """Turn about the three axes; what comes in from outside is 0, as `grid_sample` has it."""
    matrix = np.eye(3)
    for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), angles, strict=True):
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    # grid_sample counts in halves of each edge, the last axis first.
    half = np.array(view.shape[:1:-1], dtype=float)
    theta = np.concatenate([matrix * half / half[:, None], np.zeros((3, 1))], axis=1)
    positions = functional.affine_grid(torch.from_numpy(theta).float()[None], list(view.shape), False)
    return functional.grid_sample(view, positions, align_corners=False)


def _cut(view: Tensor, shape: Sequence[int], filling: float) -> Tensor:
    """Cut or pad to the model's size, about the middle."""
    pads: list[int] = []
    for axis, size in zip((-1, -2, -3), reversed(list(shape)), strict=True):
        missing = size - view.shape[axis]
        pads += [missing // 2, missing - missing // 2]
    return functional.pad(view, pads, value=filling)


def _corner_warp(volumes: Tensor, draws: Sequence[np.random.Generator]) -> Tensor:
    """Shift by 0 to 7 voxels and scale by 0.9 to 1.1 about the first corner, in one resampling."""
    size = np.array(volumes.shape[2:])
    thetas = []
    for draw in draws:
        shift, scale = draw.integers(0, 8, size=3), draw.uniform(0.9, 1.1)
        # Output voxel o shows input voxel (o - shift) / scale; both counted in halves of the edge.
        offset = ((size / 2 - shift) / scale - size / 2) / (size / 2)
        thetas.append(np.concatenate([np.eye(3) / scale, offset[::-1][:, None]], axis=1))
    theta = torch.from_numpy(np.stack(thetas)).float()
    return functional.grid_sample(
        volumes, functional.affine_grid(theta, list(volumes.shape), False), align_corners=False
    )
