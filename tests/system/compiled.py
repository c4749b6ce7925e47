# SPDX-License-Identifier: Apache-2.0
"""A model that does what torch's compiler does under it: it writes code, loads it and runs it."""

import ctypes
import mmap
import os
from pathlib import Path

from gpuwarden.worker.engine import Context, Engine
from gpuwarden.worker.engines.transformers.compiler import FOLDER, trouble

RETURN_42 = bytes.fromhex("b82a000000c3")  # x86-64: mov eax, 42; ret


class Compiled(Engine):
    def load(self, context: Context) -> None:
        folder = Path(os.environ[FOLDER])
        self.found = {
            "trouble": trouble(os.environ),
            "written_and_run": self.written_and_run(),
            "kept": (folder / "kept").exists(),
            "offline": [os.environ[name] for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")],
        }
        folder.mkdir(exist_ok=True)
        (folder / "kept").touch()

    def written_and_run(self) -> int:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(RETURN_42)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

    def predict(self, batch: list[object]) -> list[dict[str, object]]:
        return [self.found for _ in batch]
