# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from gpuwarden.worker.engine import OptionsError
from gpuwarden.worker.engines.command.options import (
    Options,
    fields_of,
    filled,
    own_port,
    parse_options,
)

COMMAND = ["/opt/vllm/bin/vllm", "serve", "/models/m", "--port", "{port}"]


def test_a_command_and_a_port_are_enough() -> None:
    options = parse_options({"command": COMMAND, "port": 8000, "simulated_load": 0.5})
    assert options == Options(tuple(COMMAND), 8000)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("command", [], "a program by its whole path"),
        ("command", ["vllm", "serve"], "a program by its whole path"),
        ("command", "/opt/vllm/bin/vllm serve", "a program by its whole path"),
        ("command", ["/bin/x", "a\0b"], "a program by its whole path"),
        ("command", ["/bin/x", 1], "a program by its whole path"),
        ("port", 0, "from 1 to 65535"),
        ("port", 65536, "from 1 to 65535"),
        ("port", True, "from 1 to 65535"),
        ("port", "8000", "from 1 to 65535"),
        ("environment", ["NAME"], "a list of variables"),
        ("environment", ["9=1"], "a list of variables"),
        ("ready_path", "health", "a path like"),
        ("ready_path", "/a b", "a path like"),
        ("metrics_path", "/m\r\nX: y", "a path like"),
        ("wait_for_gpu", "yes", "true or false"),
        ("api", "grpc", "openai or none"),
        ("log", "none", "startup or all"),
        ("headers", ["Content-Length: 3"], "other than the worker's own"),
        ("headers", ["X: a\r\nY: b"], "other than the worker's own"),
        ("headers", ["no colon"], "other than the worker's own"),
        ("api_key_file", "key", "the whole path"),
        ("request_fields", "[1]", "a JSON object"),
        ("request_fields", "{", "a JSON object"),
        ("served_model", 3, "a text"),
        ("redy_path", "/", "one of command, port"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_would_be_right(
    name: str, value: Any, wanted: str
) -> None:
    with pytest.raises(OptionsError, match=f"{name} is .*{wanted}"):
        parse_options({"command": COMMAND, "port": 8000, name: value})


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(OptionsError, match=r"port is missing.*command is \[\].*log is 'x'"):
        parse_options({"command": [], "log": "x"})


def test_placeholders_are_filled_in_and_other_braces_stay() -> None:
    words = ("{port}", '--json={"a": {}}', "{model}-{max_batch}", "{unknown}")
    values = {"port": 8001, "model": "m {port}", "max_batch": 4}
    assert filled(words, values)[0] == "8001"
    assert filled(words, values)[1:] == ['--json={"a": {}}', "m {port}-4", "{unknown}"]


def test_workers_side_by_side_have_a_port_each_where_they_are_told_it() -> None:
    moving = parse_options({"command": COMMAND, "port": 8000})
    by_variable = parse_options(
        {"command": ["/bin/page"], "port": 8000, "environment": ["GRADIO_SERVER_PORT={port}"]}
    )
    fixed = parse_options({"command": ["/bin/page", "--port", "8000"], "port": 8000})
    assert [own_port(each, 3) for each in (moving, by_variable, fixed)] == [8003, 8003, 8000]


def test_further_fields_of_a_request_are_a_json_object() -> None:
    fields = '{"chat_template_kwargs": {"thinking_mode": "off"}}'
    options = parse_options({"command": COMMAND, "port": 1, "request_fields": fields})
    assert fields_of(options) == {"chat_template_kwargs": {"thinking_mode": "off"}}
