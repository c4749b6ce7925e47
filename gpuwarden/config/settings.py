# SPDX-License-Identifier: Apache-2.0
"""What a setting is: a pydantic field that also knows its unit and the reason of its default.

The same knowledge writes error messages, the shipped file and the documentation, so that the three
can't disagree.
"""

from typing import Any, get_args

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from gpuwarden.config.formats import format_size


class Section(BaseModel):
    """Base of every table of the file: unknown keys refused, nothing converted, nothing changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def setting(
    default: Any,
    *,
    description: str,
    why: str,
    unit: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    allowed: str = "",
) -> Any:
    """A documented setting.

    :param why: why the default is what it is, for the operator who thinks of changing it.
    :param unit: unit of the number; a size in bytes also accepts ``16G``.
    :param allowed: what may be written, where bounds and unit don't tell it.
    """
    # Any: like pydantic's own Field, it stands for a default of whatever type the field has.
    default_or_factory = {"default_factory" if callable(default) else "default": default}
    return Field(
        **default_or_factory,
        description=description,
        ge=at_least,
        le=at_most,
        json_schema_extra={"unit": unit, "why": why, "allowed": allowed},
    )


def table_of(field: FieldInfo) -> type[Section] | None:
    """The tables that a setting holds by name or in a list; None where it holds plain values."""
    for held in get_args(field.annotation):
        if isinstance(held, type) and issubclass(held, Section):
            return held
    return None


def extra_of(field: FieldInfo, name: str) -> str:
    """``unit``, ``why`` or ``allowed`` of a field; empty where it has none."""
    extra = field.json_schema_extra
    return str(extra.get(name, "")) if isinstance(extra, dict) else ""


def allowed_values(field: FieldInfo) -> str:
    """What may be written for this setting, in words."""
    explicit = extra_of(field, "allowed")
    if explicit:
        return explicit
    unit = extra_of(field, "unit")
    bounds = {type(item): item for item in field.metadata}
    low, high = bounds.get(Ge), bounds.get(Le)
    if not isinstance(low, Ge) or not isinstance(high, Le):
        return "a string"
    if unit == "bytes":
        sizes = [format_size(int(str(bound))) for bound in (low.ge, high.le)]
        return f'bytes from {sizes[0]} to {sizes[1]}, as a number or a string like "512M"'
    noun = "a whole number" if field.annotation is int else "a number"
    return f"{noun} from {low.ge} to {high.le}{f' ({unit})' if unit else ''}"
