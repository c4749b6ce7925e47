# SPDX-License-Identifier: Apache-2.0
"""What ``[workers.options]`` says of a server, checked as a whole. Pure."""

import json
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from gpuwarden.worker.engines.problems import RUNTIMES_OWN, OptionProblem, refuse

PORTS = (1, 65535)

APIS = ("openai", "none")
LOGS = ("startup", "all")
PLACEHOLDER = "{port}"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: ?[\x20-\x7e]+")
# What the worker sends itself.
_OWN_HEADERS = ("host", "content-length", "content-type", "connection", "transfer-encoding")


@dataclass(frozen=True)
class Options:
    """A server, as the configuration describes it.

    :ivar command: program and arguments. ``{port}``, ``{model}``, ``{number}`` (of the worker),
        ``{gpu_index}`` and ``{max_batch}`` are filled in, in ``environment`` as well.
    :ivar port: where it listens, on 127.0.0.1; where ``{port}`` is used, of worker 0, and of
        worker N that plus N.
    :ivar environment: variables, ``NAME=value``.
    :ivar ready_path: answers GET with a 2xx or 3xx once it can serve; empty: the open port will do.
    :ivar wait_for_gpu: it is ready when one of its processes is on the card, too.
    :ivar api: ``openai``, or ``none`` of one that takes no requests from the front door.
    :ivar api_path: before ``/chat/completions``.
    :ivar served_model: its own name of the model; empty: the one that callers use.
    :ivar headers: of each request to it, ``Name: value``.
    :ivar api_key_file: holds what goes into ``Authorization: Bearer``.
    :ivar request_fields: a JSON object of more fields for each request.
    :ivar metrics_path: its figures in Prometheus's form; empty: it has none.
    :ivar thermal_path: POSTed to when its card gets hot and when it has cooled; ``{mode}`` is
        ``eco`` or ``normal``; empty: nothing is said.
    :ivar log: which of its output reaches the journal: until it is ready, or all.
    """

    command: Tuple[str, ...]
    port: int
    environment: Tuple[str, ...] = ()
    ready_path: str = "/health"
    wait_for_gpu: bool = True
    api: str = "openai"
    api_path: str = "/v1"
    served_model: str = ""
    headers: Tuple[str, ...] = ()
    api_key_file: str = ""
    request_fields: str = "{}"
    metrics_path: str = "/metrics"
    thermal_path: str = ""
    log: str = "startup"


def problems_of(table: Mapping[str, Any]) -> List[OptionProblem]:
    """Everything that is wrong with the options in a table."""
    problems = [OptionProblem(name, "", WANTED[name][1]) for name in NEEDED if name not in table]
    for name, value in table.items():
        if name in RUNTIMES_OWN:
            continue
        if name not in WANTED:
            problems.append(OptionProblem(name, "no such option", f"one of {', '.join(WANTED)}"))
            continue
        is_right, wanted = WANTED[name]
        if not is_right(value):
            problems.append(OptionProblem(name, repr(value), wanted))
    return problems


def parse_options(table: Mapping[str, Any]) -> Options:
    """The options in a table. Raises OptionsError with every problem found."""
    refuse(problems_of(table))
    options: Dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in table.items()
        if name in WANTED
    }
    return Options(**options)


def own_port(options: Options, number: int) -> int:
    """The port of worker ``number``'s server."""
    moves = any(PLACEHOLDER in word for word in (*options.command, *options.environment))
    return options.port + number if moves else options.port


def filled(words: Tuple[str, ...], values: Mapping[str, object]) -> List[str]:
    """The words with their placeholders filled in; other braces stay."""
    found = list(words)
    for name, value in values.items():
        found = [word.replace(f"{{{name}}}", str(value)) for word in found]
    return found


def fields_of(options: Options) -> Dict[str, Any]:
    """The further fields of each request."""
    return _object_in(options.request_fields) or {}


def _object_in(text: str) -> Optional[Dict[str, Any]]:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_path(value: Any) -> bool:
    return _is_text(value) and (not value or (value.startswith("/") and " " not in value))


def _is_file(value: Any) -> bool:
    return _is_text(value) and PurePath(value).is_absolute()


def _is_object(value: Any) -> bool:
    return isinstance(value, str) and _object_in(value) is not None


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and PORTS[0] <= value <= PORTS[1] and value is not True


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)


def _is_command(value: Any) -> bool:
    words = value if _are_texts(value) else []
    return bool(words) and _is_file(words[0]) and not any("\0" in word for word in words)


def _are_variables(value: Any) -> bool:
    return _are_texts(value) and all(_VARIABLE.fullmatch(word) for word in value)


def _are_headers(value: Any) -> bool:
    if not _are_texts(value) or not all(_HEADER.fullmatch(word) for word in value):
        return False
    return not any(word.partition(":")[0].lower() in _OWN_HEADERS for word in value)


NEEDED = ("command", "port")
_A_PATH = (_is_path, 'a path like "/health", or "" for none')
# By name: what a value must be, for the machine and for people.
WANTED: Dict[str, Tuple[Callable[[Any], bool], str]] = {
    "command": (
        _is_command,
        'a program by its whole path, and its arguments: ["/opt/vllm/bin/vllm", "serve"]',
    ),
    "port": (_is_port, f"a whole number from {PORTS[0]} to {PORTS[1]}"),
    "environment": (_are_variables, 'a list of variables: ["VLLM_HOST_IP=127.0.0.1"]'),
    "ready_path": _A_PATH,
    "wait_for_gpu": (lambda value: isinstance(value, bool), "true or false"),
    "api": (lambda value: value in APIS, " or ".join(APIS)),
    "api_path": _A_PATH,
    "served_model": (_is_text, "a text"),
    "headers": (_are_headers, 'a list of headers other than the worker\'s own: ["X-Site: 7"]'),
    "api_key_file": (_is_file, "the whole path of a file"),
    "request_fields": (_is_object, "a JSON object as a text: '{\"top_k\": 20}'"),
    "metrics_path": _A_PATH,
    "thermal_path": _A_PATH,
    "log": (lambda value: value in LOGS, " or ".join(LOGS)),
}
