"""The box of the model's grid that a run optimizes."""

from dataclasses import dataclass

import numpy as np

from models.manifest import InputSpace
from neurofv.v1 import method_pb2
from service.errors import InvalidField, VolumeTooLarge

# Over this length the canvas fades into the brain around it.
FADE_MM = 8.0
_AXES = ("i", "j", "k")


@dataclass(frozen=True)
class Box:
    """A box of voxels within a grid.

    Parameters
    ----------
    start, shape : tuple of int
        First voxel and number of voxels along each axis.
    """

    start: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def whole(cls, space: InputSpace) -> "Box":
        """Return the box that is the whole grid."""
        return cls((0, 0, 0), space.shape)

    def contains(self, place: np.ndarray) -> bool:
        """Tell whether a place, real-valued voxel indices of the grid, lies in one of the voxels."""
        from_start = place - self.start
        inside = (from_start >= -0.5) & (from_start <= np.array(self.shape) - 0.5)
        return bool(np.isfinite(place).all() and inside.all())

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Return the box's part of a volume on the whole grid."""
        return volume[self._slices]

    def paste(self, part: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Return the background on the whole grid with `part` in the box."""
        whole = background.copy()
        whole[self._slices] = part
        return whole

    def window(self, space: InputSpace) -> np.ndarray:
        """Return a factor for each voxel that falls to 0 at the faces inside the grid.

        There the box meets the reference brain, and a step in intensity would be
        an edge that no brain has. Faces on the grid's own border do not fade.

        Returns
        -------
        ndarray, float32
            In the shape of the box, 0 to 1.
        """
        window = np.ones(self.shape, np.float32)
        for axis, (start, count, limit) in enumerate(zip(self.start, self.shape, space.shape, strict=True)):
            width = min(FADE_MM / space.voxel_size_mm[axis], count / 6)
            rise = np.clip((np.arange(count) + 0.5) / width, 0, 1)
            ramp = (rise if start > 0 else 1) * (rise[::-1] if start + count < limit else 1)
            window *= np.reshape(np.broadcast_to(ramp, count), [-1 if i == axis else 1 for i in range(3)])
        return window

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(start, start + size) for start, size in zip(self.start, self.shape, strict=True))


def to_voxel(space: InputSpace, point: method_pb2.Point) -> np.ndarray:
    """Return the voxel indices, as real numbers, of a point in mm."""
    return (np.linalg.inv(space.affine) @ [point.x, point.y, point.z, 1])[:3]


def to_point(space: InputSpace, voxel: np.ndarray) -> method_pb2.Point:
    """Return the point in mm of voxel indices."""
    x, y, z, _ = np.asarray(space.affine) @ [*voxel, 1]
    return method_pb2.Point(x=x, y=y, z=z)


def resolve(
    canvas: method_pb2.Canvas, space: InputSpace, middle: np.ndarray, max_voxels: int, volumes: int = 1
) -> Box:
    """Turn a request's canvas into a box and write the box back into it.

    A box that would reach over the grid's border is moved inside.

    Parameters
    ----------
    canvas : Canvas
        From the request; every field is set on return.
    space : InputSpace
        The model's grid.
    middle : ndarray, (3,)
        Voxel on which the box is centered if the request does not say.
    max_voxels : int
        The server's limit.
    volumes : int
        How many of such a box are computed at once.

    Returns
    -------
    Box
        Within the grid.

    Raises
    ------
    InvalidField
        A number is negative or not finite.
    VolumeTooLarge
        The box is larger than the grid or the limit.
    """
    shape = tuple(
        _edge(getattr(canvas.size_mm, axis), axis, size, count)
        for axis, size, count in zip(_AXES, space.voxel_size_mm, space.shape, strict=True)
    )
    voxels = int(np.prod(shape)) * volumes
    if voxels > max_voxels:
        many = f" in {volumes} volumes" if volumes > 1 else ""
        rule = f"has {voxels} voxels{many}, but the server's limit is {max_voxels}; ask for a smaller box"
        raise VolumeTooLarge("canvas.size_mm", rule, limit=max_voxels, actual=voxels)
    if canvas.HasField("center_mm"):
        middle = to_voxel(space, canvas.center_mm)
        if not Box.whole(space).contains(middle):
            raise InvalidField("canvas.center_mm", "is not a point inside the model's grid")
    # A millionth of a voxel decides ties the same way when the resolved request is resolved again.
    first = np.floor(middle - (np.array(shape) - 1) / 2 + 0.5 + 1e-6).astype(int)
    first = np.clip(first, 0, np.array(space.shape) - shape)
    for axis, size, count in zip(_AXES, space.voxel_size_mm, shape, strict=True):
        setattr(canvas.size_mm, axis, size * count)
    canvas.center_mm.CopyFrom(to_point(space, first + (np.array(shape) - 1) / 2))
    return Box(tuple(int(value) for value in first), shape)  # type: ignore[arg-type]


def _edge(length: float, axis: str, voxel_size: float, count: int) -> int:
    """Return an edge in voxels; 0 mm stands for the whole axis."""
    field = f"canvas.size_mm.{axis}"
    if not (np.isfinite(length) and length >= 0):
        raise InvalidField(field, f"is {length}, but must be a finite number of at least 0 (mm)")
    voxels = round(length / voxel_size) if length else count
    if voxels > count:
        limit = count * voxel_size
        raise VolumeTooLarge(
            field, f"is {length:g} mm, but the grid has {limit:g} mm", limit=limit, actual=length
        )
    return max(voxels, 1)
