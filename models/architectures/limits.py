"""Bounds of the numbers that a bundle may give to an architecture: it comes from others."""

from __future__ import annotations

from collections.abc import Sequence

MAX_BLOCKS = 12
MAX_WIDTH = 1024


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """Return a whole number within bounds.

    Raises
    ------
    ValueError
        If it is none, or beyond them.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be whole, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value}")
    return value


def class_count(classes: object) -> int:
    """Return the number of logits, 1 to `MAX_WIDTH`; ValueError otherwise."""
    return whole_number("classes", classes, 1, MAX_WIDTH)


def channel_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Return channels of blocks: 1 to `MAX_BLOCKS` numbers from 1 to `MAX_WIDTH`; ValueError otherwise."""
    if isinstance(widths, str) or not 1 <= len(widths) <= MAX_BLOCKS:
        raise ValueError(f"widths must be 1 to {MAX_BLOCKS} numbers from 1 to {MAX_WIDTH}, got {widths}")
    return tuple(whole_number("widths", width, 1, MAX_WIDTH) for width in widths)


def probability(name: str, value: object) -> float:
    """Return a number from 0 to below 1; ValueError otherwise."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, got {value!r}")
    return float(value)
