# SPDX-License-Identifier: Apache-2.0
"""From a validation error to words: what was found, what is allowed, what was perhaps meant."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gpuwarden.config.models import Configuration
from gpuwarden.config.positions import KeyPath
from gpuwarden.config.problems import quoted, shown_key, shown_value
from gpuwarden.config.settings import Section, allowed_values, table_of

KEY_IS_MEANT = "[key]"  # how pydantic ends the path of a key that is wrong in itself


def sections() -> Iterator[tuple[str, type[Section]]]:
    """The tables of the file in order, with their models."""
    for name, field in Configuration.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, Section):
            yield name, model


class Explanation(NamedTuple):
    """What a Problem says of a value."""

    found: str
    allowed: str
    hint: str = ""


def explain(document: Mapping[str, Any], path: KeyPath, details: ErrorDetails) -> Explanation:
    """What is to be said of one validation error at ``path`` of a document."""
    if details["type"] == "extra_forbidden":
        return _explain_unknown(document, path)
    field = _field_at(path)
    allowed = f"a table, [{shown_key(path)}]" if field is None else allowed_values(field)
    if details["type"] == "missing":
        return Explanation("nothing", allowed)
    hint = str(details["ctx"]["error"]) if details["type"] == "value_error" else ""
    if names_key(details):
        return Explanation(quoted(str(path[-1])), allowed, hint)
    return Explanation(shown_value(_value_at(document, path)), allowed, hint)


def names_key(details: ErrorDetails) -> bool:
    """Whether the error is about a table's own name, not about what it holds."""
    return details["loc"][-1] == KEY_IS_MEANT and details["type"] == "value_error"


def _explain_unknown(document: Mapping[str, Any], path: KeyPath) -> Explanation:
    name = str(path[-1])
    models = dict(sections())
    if len(path) == 1 and isinstance(document[name], dict):
        tables = ", ".join(f"[{table}]" for table in models)
        return Explanation("an unknown table", tables, _did_you_mean(_nearest(name, models)))
    homes = {key: table for table, model in models.items() for key in model.model_fields}
    if len(path) == 1:
        key = name if name in homes else _nearest(name, homes)
        hint = _did_you_mean(f"{key} in [{homes[key]}]" if key else "")
        return Explanation("a key before the first table", "only tables", hint)
    own = list((_inner_table(path) or models[str(path[0])]).model_fields)
    nearest = _nearest(name, own)
    if not nearest and name in homes:
        nearest = f"{name} in [{homes[name]}]"
    return Explanation("an unknown key", ", ".join(own), _did_you_mean(nearest))


def _nearest(name: str, known: Iterable[str]) -> str:
    # By difflib's own cutoff, 0.6: "max_batsh" finds "max_batch", "colour" finds nothing.
    near = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1)
    return near[0] if near else ""


def _did_you_mean(nearest: str) -> str:
    return f"did you mean {nearest}?" if nearest else ""


def _value_at(document: Any, path: KeyPath) -> object:
    for part in path:
        document = document[part]
    return document


def _field_at(path: KeyPath) -> FieldInfo | None:
    """The setting at or around a path; None for a table."""
    if len(path) == 1:
        return None
    inner = _inner_table(path)
    if inner is not None:
        return inner.model_fields[str(path[3])]
    return dict(sections())[str(path[0])].model_fields[str(path[1])]


def _inner_table(path: KeyPath) -> type[Section] | None:
    """The table that a setting holds, where the path leads into one: ``thermal.hooks[0].on``."""
    if len(path) < 4:
        return None
    return table_of(dict(sections())[str(path[0])].model_fields[str(path[1])])
