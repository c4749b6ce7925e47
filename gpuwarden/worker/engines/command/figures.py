# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself in Prometheus's form, in the words of ours. Pure."""

import math
import re
from typing import Callable, Dict, Iterable, List, Tuple

# Names of vLLM (before and from its version 1), SGLang and llama.cpp's server.
NAMES: Dict[str, str] = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_cache_usage",
    "vllm:gpu_cache_usage_perc": "kv_cache_usage",
    "sglang:num_running_reqs": "running",
    "sglang:num_queue_reqs": "waiting",
    "sglang:token_usage": "kv_cache_usage",
    "llamacpp:requests_processing": "running",
    "llamacpp:requests_deferred": "waiting",
    "llamacpp:kv_cache_usage_ratio": "kv_cache_usage",
}
# Of several engines behind one server: requests add up, the fullest cache counts.
TOGETHER: Dict[str, Callable[[Iterable[float]], float]] = {
    "running": sum,
    "waiting": sum,
    "kv_cache_usage": max,
}
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(?P<value>\S+)(\s+\d+)?")


def figures_in(text: str) -> Dict[str, float]:
    """The figures known by name: ``running``, ``waiting``, ``kv_cache_usage`` (a share)."""
    found: Dict[str, List[float]] = {}
    for name, value in _samples(text):
        if name in NAMES:
            found.setdefault(NAMES[name], []).append(value)
    return {name: TOGETHER[name](values) for name, values in found.items()}


def _samples(text: str) -> Iterable[Tuple[str, float]]:
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            yield match["name"], value
