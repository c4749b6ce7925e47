# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

from gpuwarden.gateway.errors import STATUS
from gpuwarden.gateway.openapi import as_text
from gpuwarden.gateway.operations import OPERATIONS
from gpuwarden.gateway.schema import ChatRequest
from gpuwarden.worker.chat import ROLES
from gpuwarden.worker.chat_parameters import KNOWN

ROOT = Path(__file__).parents[2]


def test_the_shipped_document_is_the_one_that_is_served() -> None:
    assert (ROOT / "docs" / "openapi.json").read_text() == as_text(), (
        "run: python -m gpuwarden.gateway.openapi docs/openapi.json"
    )


def test_the_document_holds_no_reference_that_leads_nowhere() -> None:
    text = as_text()
    document = json.loads(text)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names == set(document["components"]["schemas"])


def test_every_operation_has_its_own_name_and_known_errors() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert {kind for operation in OPERATIONS for kind in operation.errors} <= set(STATUS)


def test_the_document_and_the_worker_know_the_same_parameters_of_a_chat() -> None:
    assert set(ChatRequest.model_fields) == set(KNOWN)
    described = ChatRequest.model_json_schema()["$defs"]["ChatMessage"]["properties"]["role"]
    assert tuple(described["enum"]) == ROLES
