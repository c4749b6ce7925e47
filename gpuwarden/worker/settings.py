# SPDX-License-Identifier: Apache-2.0
"""What the launcher tells a worker: one JSON object in a sealed descriptor."""

import json
import os
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Dict, List, Optional, Tuple, Type

from gpuwarden.worker.engine import MAX_PIXELS, Context
from gpuwarden.worker.priority import NORMAL, parse_priority

SETTINGS_LIMIT_BYTES = 1024 * 1024
SIMULATOR_SOCKET = "/run/gpuwarden-sim/attach.sock"
SCAN_FOLDER = "/run/gpuwarden/scan"  # the contract's
LOG_LEVELS = ("debug", "info", "warning", "error")


class SettingsError(Exception):
    """The settings cannot be used; the text names each key, what it holds and what it may hold."""


@dataclass(frozen=True)
class Settings:
    """A worker's settings. Keys with a default may be left out."""

    number: int
    engine: str
    model: str
    dispatch_socket: str
    engine_path: List[str] = field(default_factory=list)
    options: Dict[str, Any] = field(default_factory=dict)
    gpu_uuid: str = ""
    gpu_index: Optional[int] = None
    max_batch: int = 4
    preprocess_processes: int = 2
    preprocess_memory_bytes: int = 4 << 30
    max_pixels: int = MAX_PIXELS
    drain_seconds: float = 30.0
    execution_timeout_seconds: float = 30.0
    load_timeout_seconds: float = 600.0
    inference_priority: str = NORMAL
    simulator_socket: str = SIMULATOR_SOCKET
    scan_folder: str = SCAN_FOLDER
    log_level: str = "info"

    def context(self) -> Context:
        """What the engine gets to know."""
        return Context(
            model=self.model,
            options=dict(self.options),
            number=self.number,
            gpu_index=self.gpu_index,
            gpu_uuid=self.gpu_uuid,
            max_batch=self.max_batch,
            max_pixels=self.max_pixels,
        )


_NUMBER: Tuple[Type[Any], ...] = (int, float)
_KINDS: Dict[str, Tuple[Tuple[Type[Any], ...], str]] = {
    "number": ((int,), "a whole number"),
    "engine": ((str,), "a text"),
    "model": ((str,), "a text"),
    "dispatch_socket": ((str,), "a path"),
    "engine_path": ((list,), "a list of directories"),
    "options": ((dict,), "a table"),
    "gpu_uuid": ((str,), "a text"),
    "gpu_index": ((int, type(None)), "a whole number or null"),
    "max_batch": ((int,), "a whole number"),
    "preprocess_processes": ((int,), "a whole number"),
    "preprocess_memory_bytes": ((int,), "a whole number"),
    "max_pixels": ((int,), "a whole number"),
    "drain_seconds": (_NUMBER, "a number"),
    "execution_timeout_seconds": (_NUMBER, "a number"),
    "load_timeout_seconds": (_NUMBER, "a number"),
    "inference_priority": ((str,), "a text"),
    "simulator_socket": ((str,), "a path"),
    "scan_folder": ((str,), "a path"),
    "log_level": ((str,), "a text"),
}
_AT_LEAST_ONE = (
    "max_batch",
    "preprocess_processes",
    "preprocess_memory_bytes",
    "max_pixels",
)
# Options that the runtime itself reads, and the most that each may be.
RUNTIME_OPTIONS = {"memory_fraction": 1, "warning_threshold": 1, "monitor_interval": 3600}
_POSITIVE = ("drain_seconds", "execution_timeout_seconds", "load_timeout_seconds")


def read_settings(descriptor: int) -> Settings:
    """The settings in a descriptor, which stays open. Raises SettingsError."""
    try:
        text = os.pread(descriptor, SETTINGS_LIMIT_BYTES, 0)
    except OSError as error:
        raise SettingsError(f"descriptor {descriptor} cannot be read: {error.strerror}") from error
    return parse_settings(text)


def parse_settings(text: bytes) -> Settings:
    """The settings in a JSON text. Raises SettingsError with every problem found."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"settings are not JSON: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"settings are a {type(data).__name__}, not an object")
    problems = list(_problems(data))
    if problems:
        raise SettingsError("; ".join(problems))
    if data.get("gpu_uuid") is None:
        data.pop("gpu_uuid", None)  # a worker without a card
    return Settings(**data)


def _problems(data: Dict[str, Any]) -> List[str]:
    problems = [f"unknown key {key!r}" for key in sorted(set(data) - set(_KINDS))]
    for entry in fields(Settings):
        needed = entry.default is MISSING and entry.default_factory is MISSING
        if entry.name in data:
            problems += _problems_of(entry.name, data[entry.name])
        elif needed:
            problems.append(f"key {entry.name!r} is missing")
    return problems


def _problems_of(key: str, value: Any) -> List[str]:
    if key == "gpu_uuid" and value is None:
        return []
    kinds, wanted = _KINDS[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        return [f"{key} is {value!r}, should be {wanted}"]
    if key in _AT_LEAST_ONE and value < 1:
        return [f"{key} is {value}, should be at least 1"]
    if key in _POSITIVE and value <= 0:
        return [f"{key} is {value}, should be over 0 seconds"]
    if key == "options":
        checked = RUNTIME_OPTIONS.items()
        return [text for name, most in checked for text in _problems_of_option(name, most, value)]
    return _problems_of_word(key, value)


def _problems_of_option(name: str, most: int, options: Dict[str, Any]) -> List[str]:
    value = options.get(name, most)
    is_number = isinstance(value, _NUMBER) and not isinstance(value, bool)
    if is_number and 0 < value <= most:
        return []
    return [f"option {name} is {value!r}, should be a number over 0, at most {most}"]


def _problems_of_word(key: str, value: Any) -> List[str]:
    if key == "log_level" and value not in LOG_LEVELS:
        return [f"log_level is {value!r}, should be one of {', '.join(LOG_LEVELS)}"]
    if key == "inference_priority":
        try:
            parse_priority(value)
        except ValueError as error:
            return [f"inference_priority is {value!r}, should be {error}"]
    return []
