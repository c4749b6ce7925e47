# SPDX-License-Identifier: Apache-2.0
"""Where a model's files are on this machine; nothing is fetched."""

import os
from pathlib import Path

from gpuwarden.worker.engines.transformers.folder import ModelError, ModelFolder, open_folder
from gpuwarden.worker.engines.transformers.options import EngineOptions


def prepare_environment(options: EngineOptions) -> None:
    """What the libraries read from the environment, before they are imported."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if options.allocator:
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = options.allocator


def find_folder(path: str) -> ModelFolder:
    """The folder of that path, or of a model of that name in the library's cache.

    Raises ModelError.
    """
    here = Path(path).expanduser()
    if here.is_dir() or path.startswith(("/", "~", ".")):
        return open_folder(here)
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only for a name
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return open_folder(Path(snapshot_download(path, local_files_only=True)))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise ModelError(
            f"there is neither a folder {path!r} nor a model of that name in the library's cache "
            "(HF_HOME); nothing is fetched: bring its files here first"
        ) from error
