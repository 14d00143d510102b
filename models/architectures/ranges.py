"""Checks of hyperparameters, which come from JSON and so may be of any type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_BLOCKS = 12
MAX_WIDTH = 1024


def _is_whole(value: Any) -> bool:
    # JSON's true is no number, though Python counts it among the integers.
    return isinstance(value, int) and not isinstance(value, bool)


def check_whole(field: str, value: Any, low: int, high: int) -> None:
    """Refuse what is not a whole number in a range.

    Parameters
    ----------
    field : str
        The hyperparameter's name.
    value : object
        What was given for it.
    low, high : int
        The range, both ends included.

    Raises
    ------
    ValueError
        If `value` is of another type or out of the range.
    """
    if not _is_whole(value) or not low <= value <= high:
        raise ValueError(f"{field} must be a whole number from {low} to {high}, got {value!r}")


def check_wholes(field: str, values: Any, lengths: tuple[int, int], low: int, high: int) -> None:
    """Refuse what is not a list of whole numbers in a range.

    Parameters
    ----------
    field : str
        The hyperparameter's name.
    values : object
        What was given for it.
    lengths : tuple of int
        Fewest and most entries.
    low, high : int
        The range of each entry, both ends included.

    Raises
    ------
    ValueError
        If `values` is no list or tuple, or its length or an entry is out of range.
    """
    shortest, longest = lengths
    sized = isinstance(values, Sequence) and shortest <= len(values) <= longest
    if not sized or not all(_is_whole(value) and low <= value <= high for value in values):
        count = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        raise ValueError(f"{field} must be {count} whole numbers from {low} to {high}, got {values!r}")


def check_probability(field: str, value: Any) -> None:
    """Refuse what is no probability of dropping a unit.

    Parameters
    ----------
    field : str
        The hyperparameter's name.
    value : object
        What was given for it.

    Raises
    ------
    ValueError
        If `value` is no number from 0 (included) to 1 (excluded: nothing would be left).
    """
    if not (_is_whole(value) or isinstance(value, float)) or not 0 <= value < 1:
        raise ValueError(f"{field} must be a number from 0 to below 1, got {value!r}")


def check_choice(field: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of the given words.

    Parameters
    ----------
    field : str
        The hyperparameter's name.
    value : object
        What was given for it.
    choices : sequence of str
        The words that are accepted.

    Raises
    ------
    ValueError
        If `value` is none of them.
    """
    if value not in tuple(choices):
        raise ValueError(f"{field} must be one of {', '.join(sorted(choices))}, got {value!r}")


def check_flag(field: str, value: Any) -> None:
    """Refuse what is neither true nor false.

    Parameters
    ----------
    field : str
        The hyperparameter's name.
    value : object
        What was given for it.

    Raises
    ------
    ValueError
        If `value` is of another type.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{field} must be true or false, got {value!r}")
