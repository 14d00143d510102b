"""What is known of brains, as tensors on the grid."""

from dataclasses import dataclass

from torch import Tensor

from engine.once import Once


class MissingAnatomy(ValueError):
    """The method needs something of the anatomy that was not given.

    Parameters
    ----------
    part : str
        Name of the field of `Anatomy`.
    needed_by : str
        What cannot do without it.
    """

    def __init__(self, part: str, needed_by: str) -> None:
        super().__init__(f"{needed_by} needs Spec.anatomy.{part}")
        self.part = part
        self.needed_by = needed_by


@dataclass(frozen=True, eq=False)
class Anatomy(Once):
    """What is known of brains; every part may be absent.

    Parameters
    ----------
    reference : Tensor or None, (*shape)
        The mean brain, model units.
    mask : Tensor or None, (*shape), bool
        Where the brain is.
    magnitude : Tensor or None
        Mean Fourier magnitude of real brains, orthonormal, in the shape of the grid's half spectrum.
    intensities : tuple of Tensor or None
        Levels and values, `(n,)` each, of the quantiles of real brains' intensities, model units.
    subject : Tensor or None, (*shape)
        A person's image, model units.
    brains : Tensor or None, (n, *shape)
        Brains on which patterns are pasted, model units.
    window : Tensor or None, (*shape)
        Share of the optimized volume at each voxel, 0 to 1; the rest is the reference. It fades a box
        that is cut from a larger volume into what surrounds it.
    """

    reference: Tensor | None = None
    mask: Tensor | None = None
    magnitude: Tensor | None = None
    intensities: tuple[Tensor, Tensor] | None = None
    subject: Tensor | None = None
    brains: Tensor | None = None
    window: Tensor | None = None

    def need(self, part: str, needed_by: str) -> Tensor:
        """Return a part that is a tensor.

        Raises
        ------
        MissingAnatomy
            It was not given.
        """
        found: Tensor | None = getattr(self, part)
        if found is None:
            raise MissingAnatomy(part, needed_by)
        return found
