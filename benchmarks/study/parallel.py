"""Work that is spread over the cores, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch
from rich.progress import Progress

Item = TypeVar("Item")
Found = TypeVar("Found")


def mapped(function: Callable[[Item], Found], items: Sequence[Item], label: str) -> list[Found]:
    """Apply a function to every item, each in one thread.

    Parameters
    ----------
    function : callable
        Of a module, so that other processes find it.
    items : sequence
        What it is given.
    label : str
        For the progress bar.

    Returns
    -------
    list
        What it returned, in the items' order.
    """
    # Fresh processes: those that are forked after torch has used its threads can wait for ever.
    fresh = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    found: dict[int, Found] = {}
    with (
        Progress() as progress,
        ProcessPoolExecutor(cores, fresh, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        bar = progress.add_task(label, total=len(items))
        waiting = {pool.submit(function, item): place for place, item in enumerate(items)}
        for future in as_completed(waiting):
            found[waiting[future]] = future.result()
            progress.advance(bar)
    return [found[place] for place in range(len(items))]
