# SPDX-License-Identifier: Apache-2.0
"""What an engine's allocator says of the card's memory: by itself, or torch's for it."""

import logging
from typing import Any, Dict, Mapping, Optional, Tuple

from gpuwarden.worker.engine import Engine
from gpuwarden.worker.faults import location
from gpuwarden.worker.shortage import torch_in_use

_log = logging.getLogger(__name__)

# The words of the channel; each a count or bytes.
FIGURES = (
    "reserved_bytes",
    "allocated_bytes",
    "peak_bytes",
    "inactive_split_bytes",
    "limit_bytes",
    "num_device_alloc",
    "num_alloc_retries",
    "num_ooms",
)
# What torch.cuda.memory_stats() calls them (torch 2.11).
OF_TORCH = {
    "reserved_bytes": "reserved_bytes.all.current",
    "allocated_bytes": "allocated_bytes.all.current",
    "peak_bytes": "allocated_bytes.all.peak",
    "inactive_split_bytes": "inactive_split_bytes.all.current",
    "num_device_alloc": "num_device_alloc",
    "num_alloc_retries": "num_alloc_retries",
    "num_ooms": "num_ooms",
}
MEMORY_FRACTION = 0.9  # article 3: leave 10 to 20 % of the card
WARNING_THRESHOLD = 0.8  # article 3: warning_threshold
MONITOR_INTERVAL = 5.0  # article 3: monitor_interval, seconds
LARGEST = 1 << 62  # bytes; more is no figure

Memory = Tuple[int, int]  # bytes reserved, allocated


def read_memory(engine: Engine) -> Optional[Memory]:
    """What the engine says of its VRAM; None where it can't say."""
    try:
        return engine.memory()
    except Exception as error:  # noqa: BLE001 - a figure less is no reason to end
        _log.warning("memory() failed: %s", location(error))
        return None


def read_figures(engine: Engine) -> Dict[str, int]:
    """What is known of the engine's memory on its card (GPU thread); empty where nothing is.

    Some 0.2 ms with torch: for every few seconds, not for every batch.
    """
    try:
        told = engine.memory_figures()
        if told is None:
            told = _of_torch(engine.context.options)
    except Exception as error:  # noqa: BLE001 - a figure less is no reason to end
        _log.warning("memory_figures() failed: %s", location(error))
        told = None
    if told is None:
        memory = read_memory(engine)
        told = dict(zip(FIGURES, memory)) if memory else {}
    return {name: told[name] for name in FIGURES if _is_figure(told.get(name))}


def _of_torch(options: Mapping[str, Any]) -> Optional[Dict[str, int]]:
    torch = torch_in_use()
    if torch is None:
        return None
    statistics = torch.cuda.memory_stats()
    figures = {name: statistics[key] for name, key in OF_TORCH.items() if key in statistics}
    _, total = torch.cuda.mem_get_info()
    figures["limit_bytes"] = int(total * share_of_card(options))
    return figures


def share_of_card(options: Mapping[str, Any]) -> float:
    """The share of its card that a worker may take (``memory_fraction``)."""
    return float(options.get("memory_fraction", MEMORY_FRACTION))


def warning_threshold(options: Mapping[str, Any]) -> float:
    """The share of that from which on something is done about it (``warning_threshold``)."""
    return float(options.get("warning_threshold", WARNING_THRESHOLD))


def monitor_interval(options: Mapping[str, Any]) -> float:
    """Seconds between two reports (``monitor_interval``)."""
    return float(options.get("monitor_interval", MONITOR_INTERVAL))


def _is_figure(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST
