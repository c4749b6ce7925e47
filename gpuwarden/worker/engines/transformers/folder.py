# SPDX-License-Identifier: Apache-2.0
"""A model's folder: where it is, what kind of model its files say it holds, their digest.

Standard library only: what is wrong with a folder is told before a gigabyte is read.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

from gpuwarden.worker.engine import OptionsError

CONFIG = "config.json"
CHUNK_BYTES = 1 << 22
HASHED = (".json", ".jinja", ".model", ".safetensors", ".txt", ".bin")
WEIGHTS = (".safetensors", ".bin")
ADVICE = "name a folder that save_pretrained() or a download wrote, in [workers.options] path"


class ModelError(OptionsError):
    """A model can't be loaded; the text says what was found where, and what would do."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model's files.

    :ivar config: what ``config.json`` says.
    """

    path: Path
    config: Dict[str, Any]

    @property
    def kind(self) -> str:
        """The library's name of the kind of model, ``gemma3`` say."""
        return str(self.config.get("model_type", ""))

    @property
    def has_eyes(self) -> bool:
        """Whether it takes images, too."""
        return isinstance(self.config.get("vision_config"), dict)

    @property
    def dtype(self) -> str:
        """The type of the weights, as the files say; empty where they don't."""
        text = self.config.get("text_config") or {}
        names = [
            table.get(key) for table in (self.config, text) for key in ("dtype", "torch_dtype")
        ]
        return next((str(name) for name in names if name), "")


def open_folder(path: Path) -> ModelFolder:
    """A model's folder. Raises ModelError."""
    if not path.is_dir():
        raise ModelError(f"there is no folder {path} that this user can read; {ADVICE}")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} holds no model: it has no {CONFIG}; {ADVICE}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / CONFIG} cannot be read ({type(error).__name__})") from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise ModelError(f"{path / CONFIG} names no model_type: it is no model's; {ADVICE}")
    if not any(one.suffix in WEIGHTS for one in path.iterdir()):
        raise ModelError(f"{path} has a {CONFIG} but no weights (*.safetensors); {ADVICE}")
    return ModelFolder(path, config)


def digest_of(folder: ModelFolder) -> str:
    """SHA-256 over all of a model's files, by name; read on two threads.

    What it was is remembered in the user's cache for as long as no file changes.
    """
    files = sorted(one for one in folder.path.iterdir() if one.suffix in HASHED and one.is_file())
    seen = hashlib.sha256(json.dumps([_identity(one) for one in files]).encode()).hexdigest()
    kept = _cache_folder() / f"digest-{seen}"
    try:
        return kept.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        digest = _digest(files)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(digest, encoding="ascii")
    except OSError:
        return digest  # without a cache it is made anew each time
    return digest


def _digest(files: List[Path]) -> str:
    with ThreadPoolExecutor(2) as threads:
        digests = list(threads.map(_digest_of_file, files))
    lines = "".join(f"{digest}  {one.name}\n" for digest, one in zip(digests, files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest_of_file(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _identity(file: Path) -> List[Any]:
    known = file.stat()
    return [str(file.resolve()), known.st_size, known.st_mtime_ns, known.st_ino]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(base) / "gpuwarden"
