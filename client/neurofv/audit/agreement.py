"""How alike two pictures are, whatever the place of what they show."""

import numpy as np

# Larger ones are averaged over blocks of 2 x 2 x 2 first: what a unit looks for is larger than a voxel.
_MOST_VOXELS = 60_000
# A shift counts if it leaves so much of the squared deviation of both in the overlap.
_LEAST_OVERLAP = 0.5
_DIGITS = 6


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Compare two changes after the shift that fits best.

    The largest normalized cross-correlation over all shifts, at each of the voxels on which the
    two overlap, as the service's own `agreement` is; what has not changed at all is cut off, and
    large grids are halved.

    Parameters
    ----------
    first, second : ndarray, (X, Y, Z)
        What each picture adds to the reference.

    Returns
    -------
    float
        -1 to 1, to 6 digits; 0 if one is constant.
    """
    box = _box((first != 0) | (second != 0))
    one, other = (np.asarray(change[box], np.float64) for change in (first, second))
    while one.size > _MOST_VOXELS and min(one.shape) > 1:
        one, other = _halved(one), _halved(other)
    if one.size == 0 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    turned = other[::-1, ::-1, ::-1]
    count = _overlap_sums(np.ones_like(one))
    totals = [_overlap_sums(image) for image in (one, turned)]
    spreads = [
        _overlap_sums(image**2) - total**2 / count for image, total in zip((one, turned), totals, strict=True)
    ]
    shared = _products(one, other) - totals[0] * totals[1] / count
    with np.errstate(divide="ignore", invalid="ignore"):
        found = shared / np.sqrt(np.abs(spreads[0] * spreads[1]))
    for image, spread in zip((one, other), spreads, strict=True):
        found[~(spread >= _LEAST_OVERLAP * (image**2).sum())] = -np.inf
    return round(float(np.clip(found.max(), -1, 1)), _DIGITS)


def _box(changed: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds all that has changed."""
    sides = []
    for axis in range(changed.ndim):
        where = np.flatnonzero(
            changed.any(axis=tuple(other for other in range(changed.ndim) if other != axis))
        )
        sides.append(slice(where[0], where[-1] + 1) if where.size else slice(0, 0))
    return tuple(sides)


def _halved(image: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 2 x 2 x 2; an odd rest is cut off."""
    a, b, c = (size // 2 for size in image.shape)
    return image[: 2 * a, : 2 * b, : 2 * c].reshape(a, 2, b, 2, c, 2).mean(axis=(1, 3, 5))


def _overlap_sums(image: np.ndarray) -> np.ndarray:
    """Sum an image over what it shares with a copy of its grid, for every shift of that."""
    for axis, size in enumerate(image.shape):
        head = np.take(image.cumsum(axis), range(size - 1), axis)
        tail = np.flip(np.flip(image, axis).cumsum(axis), axis)
        image = np.concatenate([head, tail], axis)
    return image


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the sum of `one(x + shift) other(x)` for every shift, from the lowest up."""
    room = [2 * size for size in one.shape]
    axes = tuple(range(one.ndim))
    spectrum = np.fft.rfftn(one, s=room, axes=axes) * np.fft.rfftn(other, s=room, axes=axes).conj()
    found = np.fft.irfftn(spectrum, s=room, axes=axes)
    for axis, size in enumerate(one.shape):
        found = np.take(np.roll(found, size - 1, axis), range(2 * size - 1), axis)
    return np.ascontiguousarray(found)
