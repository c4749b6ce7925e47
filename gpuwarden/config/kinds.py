# SPDX-License-Identifier: Apache-2.0
"""The kinds of values that settings have: what is converted, what is checked, and nothing else."""

import re
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from gpuwarden.config.formats import (
    check_card_uuid,
    check_engine,
    parse_size,
)
from gpuwarden.config.urls import check_post_url
from gpuwarden.cpulist import parse_disjoint_cpu_list
from gpuwarden.priority import parse_priority

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
SETTABLE_CELSIUS = (30, 120)  # wider than what any card's own thresholds leave, and no typing error
SETTABLE_MHZ = (100, 5000)  # a value in GHz is below

OptionScalar = str | int | float | bool
OptionValue = OptionScalar | list[OptionScalar]


def _size_to_bytes(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def list_to_tuple(value: object) -> object:
    """TOML and JSON know lists alone."""
    return tuple(value) if isinstance(value, list) else value


def _check_cpu_list(text: str) -> str:
    parse_disjoint_cpu_list(text)
    return text


def _check_priority(text: str) -> str:
    parse_priority(text)
    return text


def _check_absolute_path(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path holds no NUL character")
    if not PurePosixPath(text).is_absolute():
        raise ValueError('not an absolute path (it must begin with "/")')
    return text


def _check_model_name(text: str) -> str:
    if not text or len(text) > 128:
        raise ValueError("a name has 1 to 128 characters")
    if not all(character.isascii() and character.isprintable() for character in text):
        raise ValueError("a name is printable ASCII")
    if text != text.strip():
        raise ValueError("a name neither begins nor ends with a space")
    return text


def _check_option(value: Any) -> OptionValue:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str | int | float | bool):
            raise ValueError("options are handed to the engine as JSON")
        if isinstance(item, float) and not (abs(item) < float("inf")):
            raise ValueError("JSON has no infinity and no NaN")
    return cast("OptionValue", value)


def _check_celsius(value: float) -> float:
    low, high = SETTABLE_CELSIUS
    if value and not low <= value <= high:
        raise ValueError("no card can be guarded at that temperature")
    return value


def _check_clock(value: int) -> int:
    low, high = SETTABLE_MHZ
    if value and not low <= value <= high:
        raise ValueError("no card's SMs run at that clock")
    return value


def _check_command(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ValueError("it names no program")
    if any("\0" in word for word in words):
        raise ValueError("an argument holds no NUL character")
    _check_absolute_path(words[0])
    return words


def _check_host_name(text: str) -> str:
    if not HOST_NAME.fullmatch(text):
        raise ValueError("a host name has letters, digits, dots and hyphens, in lower case")
    return text


def _check_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"neither an address nor a network: {error}") from error
    return text


def _check_states(states: tuple[str, ...]) -> tuple[str, ...]:
    if not states:
        raise ValueError("it names no state, so the hook would never run")
    if len(set(states)) < len(states):
        raise ValueError("it names a state twice")
    return states


Bytes = Annotated[int, BeforeValidator(_size_to_bytes)]
HostNames = Annotated[
    tuple[Annotated[str, AfterValidator(_check_host_name)], ...], BeforeValidator(list_to_tuple)
]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_check_network)], ...], BeforeValidator(list_to_tuple)
]
CpuList = Annotated[str, AfterValidator(_check_cpu_list)]
Priority = Annotated[str, AfterValidator(_check_priority)]
AbsolutePath = Annotated[str, AfterValidator(_check_absolute_path)]
Engine = Annotated[str, AfterValidator(check_engine)]
AbsolutePaths = Annotated[tuple[AbsolutePath, ...], BeforeValidator(list_to_tuple)]
ModelName = Annotated[str, AfterValidator(_check_model_name)]
Option = Annotated[OptionValue, PlainValidator(_check_option)]
Celsius = Annotated[float, AfterValidator(_check_celsius)]
ClockMhz = Annotated[int, AfterValidator(_check_clock)]
CardUuid = Annotated[str, AfterValidator(check_card_uuid)]
PostUrl = Annotated[str, AfterValidator(check_post_url)]
Command = Annotated[tuple[str, ...], BeforeValidator(list_to_tuple), AfterValidator(_check_command)]
StateName = Literal["normal", "alert", "critical", "recovering", "blind", "released", "lost"]
StateNames = Annotated[
    tuple[StateName, ...], BeforeValidator(list_to_tuple), AfterValidator(_check_states)
]
