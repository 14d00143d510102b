"""What the GPU's driver tells of it, read whenever /metrics is; without a CUDA context of its own."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import structlog
from prometheus_client import Gauge

from service.device import choose_device

_log = structlog.get_logger()


def watch(device: str, used: Gauge, total: Gauge, utilization: Gauge) -> None:
    """Let gauges show a GPU's memory and use; on a CPU, or without the extra `gpu`, they stay empty.

    Parameters
    ----------
    device : str
        The setting: `auto`, `cpu`, `cuda` or `cuda:<n>`.
    used, total, utilization : Gauge
        With the label `device`.
    """
    chosen = choose_device(device)
    if chosen.type != "cuda":
        return
    number = chosen.index or 0
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = _handle(nvml, number)
    except ImportError:
        _log.warning("gpu_not_watched", reason="install the extra: pip install 'neurofv-service[gpu]'")
        return
    except Exception as error:  # the driver's, of a library that may be absent
        _log.warning("gpu_not_watched", reason=str(error))
        return
    label = f"cuda:{number}"
    used.labels(label).set_function(_guarded(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used))
    total.labels(label).set_function(_guarded(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total))
    utilization.labels(label).set_function(
        _guarded(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
    )


def _handle(nvml: Any, number: int) -> Any:
    """Return the driver's handle; CUDA numbers only the GPUs that CUDA_VISIBLE_DEVICES lets it see."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[number] if number < len(visible) else str(number)
    return (
        nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
    )


def _guarded(read: Callable[[], float]) -> Callable[[], float]:
    """Return a reader that says NaN where the driver cannot tell, such as a part's use under MIG."""

    def value() -> float:
        try:
            return float(read())
        except Exception:
            return float("nan")

    return value
