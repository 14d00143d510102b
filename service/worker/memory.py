"""The memory of the machine that a worker runs on."""

import ctypes
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device; for a CPU also within the container's limit."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable"))
    return min(1024 * int(available), _container_bytes(_CGROUP))


def give_back() -> None:
    """Return freed memory to the system: within a job it is kept, see `service.worker.process`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc's own
        trim(0)


def _container_bytes(group: Path) -> int:
    """Return what a container's limit leaves, or more than there is without a limit."""
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        lines = (group / "memory.stat").read_text().splitlines()
        # Files that were read and may be forgotten count as used.
        files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, int(limit) - int(used) + files)
    except (OSError, ValueError):  # no container, or "max"
        return 1 << 62
