# SPDX-License-Identifier: Apache-2.0
"""``/openapi.json``: OpenAPI 3.1, made from the table of operations and the models.

As a program it writes the document: python -m gpuwarden.gateway.openapi FILE
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gpuwarden import __version__
from gpuwarden.gateway.operations import OPERATIONS, Content, Operation, Parameter, statuses_of
from gpuwarden.gateway.schema import Error

REF = "#/components/schemas/{model}"
ABOUT = (
    "The front door of a GPU node. On loopback nothing but the forms below is asked for; anywhere"
    " else, and for what lists or deletes what others sent, the API key is. Pages in a browser are"
    " refused (headers Origin, Sec-Fetch-Site)."
)


def openapi_document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpuwarden",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7860"}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"apiKey": []}],
    }


def described(operation: Operation) -> dict[str, Any]:
    """One operation."""
    responses = {
        str(status): {"description": "The answer.", "content": content_of(content)}
        for status, content in operation.answers.items()
    }
    for status, kinds in statuses_of(operation).items():
        content = content_of({"application/json": Error})
        responses[str(status)] = {"description": ", ".join(kinds), "content": content}
    if operation.unready is not None:
        content = content_of({"application/json": operation.unready})
        responses["503"] = {"description": "No worker can answer now.", "content": content}
    document: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": responses,
    }
    if operation.parameters:
        document["parameters"] = [parameter(one) for one in operation.parameters]
    if operation.body is not None:
        body = {"content": content_of(operation.body), "required": operation.needs_body}
        document["requestBody"] = body
    return document


def parameter(one: Parameter) -> dict[str, Any]:
    """One parameter."""
    return {
        "name": one.name,
        "in": one.place,
        "required": one.required,
        "description": one.description,
        "schema": one.schema,
    }


def content_of(content: Content) -> dict[str, Any]:
    """A body's schemas by media type."""
    return {media_type: {"schema": schema_of(shape)} for media_type, shape in content.items()}


def schema_of(shape: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """A model by reference, anything else as it is."""
    return shape if isinstance(shape, dict) else {"$ref": REF.format(model=shape.__name__)}


def schemas() -> dict[str, Any]:
    """Every model that an operation names."""
    contents: list[Content] = [{"": Error}]
    for operation in OPERATIONS:
        contents += [*operation.answers.values(), operation.body or {}]
        contents += [{"": operation.unready}] if operation.unready else []
    named = {shape for one in contents for shape in one.values() if not isinstance(shape, dict)}
    models = sorted(named, key=lambda model: model.__name__)
    _, document = models_json_schema([(one, "validation") for one in models], ref_template=REF)
    return dict(sorted(document["$defs"].items()))


def as_text() -> str:
    """The document as it is shipped."""
    return json.dumps(openapi_document(), indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_text())
