"""Numbers with a unit, bounds and a sentence on what they do.

Every setting of the method is declared once, here in the engine's dataclasses.
The service reads the declarations to fill in defaults, to refuse what is out of
bounds and to write the reference pages.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


class InvalidField(ValueError):
    """A setting has a value that the method cannot use.

    Parameters
    ----------
    field : str
        Name of the setting.
    value : object
        What was given.
    rule : str
        What would be accepted.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} is {value}, but must be {rule}")
        self.field = field
        self.value = value
        self.rule = rule


@dataclass(frozen=True)
class Bounds:
    """The numbers that a field accepts: finite ones between its bounds.

    Parameters
    ----------
    doc : str
        One sentence for the reference page.
    unit : str
        Unit of the number; empty for a plain one.
    minimum, maximum : float or None
        Inclusive bounds.
    above : float or None
        Exclusive lower bound.
    optional : bool
        Whether the number may be absent (None), which is then its default.
    """

    doc: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    optional: bool = False

    def accepts(self, value: float | None) -> bool:
        """Tell whether `value` is finite and within the bounds, or absent where it may be."""
        if value is None:
            return self.optional
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
        )

    def __str__(self) -> str:
        parts = [
            "" if self.above is None else f"above {self.above}",
            "" if self.minimum is None else f"at least {self.minimum}",
            "" if self.maximum is None else f"at most {self.maximum}",
        ]
        words = " and ".join(part for part in parts if part)
        return f"a finite number {words}".rstrip() + (f" ({self.unit})" if self.unit else "")


def number(default: float | None = None, **bounds: Any) -> Any:
    """Declare a numeric setting.

    Parameters
    ----------
    default : float or None
        Its default; None makes it required, or absent by default if it is optional.
    **bounds
        Fields of `Bounds`.

    Returns
    -------
    dataclasses.Field
        For use in a `Checked` dataclass.
    """
    metadata = {"bounds": Bounds(**bounds)}
    if default is None and not bounds.get("optional"):
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def text(default: str = "", *, doc: str) -> Any:
    """Declare a setting that is a string.

    Parameters
    ----------
    default : str
        Its default.
    doc : str
        One sentence for the reference page.

    Returns
    -------
    dataclasses.Field
        For use in a `Checked` dataclass.
    """
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Checked:
    """A dataclass whose numeric settings are checked when it is made.

    Raises
    ------
    InvalidField
        A setting is not finite or out of bounds.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            bounds = field.metadata.get("bounds")
            value = getattr(self, field.name)
            if bounds is not None and not bounds.accepts(value):
                raise InvalidField(field.name, value, str(bounds))
