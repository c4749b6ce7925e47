# SPDX-License-Identifier: Apache-2.0
"""From a name in the configuration to an engine."""

import importlib
import sys
from pathlib import Path
from typing import List, Type

from gpuwarden.worker.engine import Context, Engine

BUILT_IN = {
    "command": "gpuwarden.worker.engines.command.engine:Command",
    "echo": "gpuwarden.worker.engines.echo:Echo",
    "imagestats": "gpuwarden.worker.engines.imagestats:ImageStatistics",
    "transformers": "gpuwarden.worker.engines.transformers.engine:Transformers",
}


class EngineNotFoundError(Exception):
    """No engine of that name; the text says what was looked for, where, and what would do."""


def make_engine(name: str, engine_path: List[str], context: Context) -> Engine:
    """An engine of the named class, its context set.

    Raises EngineNotFoundError; what the engine's own module or constructor raises goes through.
    """
    for folder in engine_path:
        if not Path(folder).is_dir():
            raise EngineNotFoundError(
                f"engine_path names {folder!r}, which is no directory that "
                "this user can read; correct [workers] engine_path"
            )
    sys.path[:0] = [folder for folder in engine_path if folder not in sys.path]
    engine = engine_class(name)()
    engine.context = context
    return engine


def engine_class(name: str) -> Type[Engine]:
    """The class of an engine's name. Raises EngineNotFoundError; import errors go through."""
    target = BUILT_IN.get(name, name)
    module_name, separator, class_name = target.partition(":")
    if not (separator and class_name.isidentifier() and _is_module_name(module_name)):
        raise EngineNotFoundError(
            f"engine {name!r} is neither {' nor '.join(sorted(BUILT_IN))} "
            "nor of the form package.module:ClassName"
        )
    found = getattr(_module(module_name), class_name, None)
    if found is None:
        raise EngineNotFoundError(f"module {module_name!r} has no class {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise EngineNotFoundError(f"{target} is no subclass of gpuwarden.worker.engine.Engine")
    return found


def _is_module_name(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _module(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            raise EngineNotFoundError(
                f"module {missing!r} was not found; put its folder into [workers] engine_path "
                f"or install it for {sys.executable}"
            ) from error
        raise EngineNotFoundError(
            f"module {name!r} needs {missing!r}, which {sys.executable} does not have; install it "
            "there or choose another interpreter in [workers] python"
        ) from error
