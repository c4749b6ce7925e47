# SPDX-License-Identifier: Apache-2.0
"""What is said on the simulator's two sockets: one JSON object a line, one answer to each."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gpuwarden.plant.problems import describe

Load = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]
GpuIndex = Annotated[int, Field(ge=0)]

SwitchFault = Literal[
    "lost",
    "sensor-error",
    "hang",
    "no-permission",
    "no-memory-lock",
    "no-power-limit",
    "no-process-list",
    "no-process-memory",
]
# The list of NVML's that a context stands in; none where the driver doesn't show its process.
ContextKind = Literal["compute", "graphics", "mps", "unlisted"]
OnceFault = Literal["external-limit", "xid", "context-lost"]
SWITCH_FAULTS: tuple[str, ...] = get_args(SwitchFault)  # stay until they are cleared
ONCE_FAULTS: tuple[str, ...] = get_args(OnceFault)  # happen, and are over


class MessageError(Exception):
    """A line is not what may be said here; the text says what is."""


class Message(BaseModel):
    """Base: nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Attach(Message):
    """The first line of a client: open a context."""

    uuid: str
    vram_bytes: Bytes = 0
    load: Load = 0.0
    kind: ContextKind = "compute"


class Change(Message):
    """Any later line of a client: hold or do more or less."""

    vram_bytes: Bytes | None = None
    load: Load | None = None


class Show(Message):
    """Tell everything about every card."""

    command: Literal["show"]


class SetWorld(Message):
    """Change the weather of a card."""

    command: Literal["set"]
    gpu: GpuIndex
    ambient_celsius: Annotated[float, Field(ge=-40, le=120, allow_inf_nan=False)] | None = None
    resistance_factor: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] | None = None


class SetLoad(Message):
    """Load a card beyond what its contexts ask."""

    command: Literal["load"]
    gpu: GpuIndex
    fraction: Load


class AddFault(Message):
    """Break something."""

    command: Literal["fault"]
    gpu: GpuIndex
    kind: SwitchFault | OnceFault
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class Clear(Message):
    """Mend one card, or all."""

    command: Literal["clear"]
    gpu: GpuIndex | None = None


class ReloadDriver(Message):
    """Unload and load the driver: default settings, no context, no old handle works."""

    command: Literal["reload-driver"]


Request = Annotated[
    Show | SetWorld | SetLoad | AddFault | Clear | ReloadDriver, Field(discriminator="command")
]
REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
ATTACH = TypeAdapter(Attach)
CHANGE = TypeAdapter(Change)


def parse(adapter: TypeAdapter[Any], line: bytes) -> Any:
    """One line as a message.

    :raises MessageError: naming each wrong field.
    """
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        raise MessageError("; ".join(describe(error))) from error
