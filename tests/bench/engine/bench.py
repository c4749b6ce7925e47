# SPDX-License-Identifier: Apache-2.0
"""One run of the benchmark: a model, a node, sections one after the other, and their results.

What is known is in ``engine.json`` from the first section on. A section that fails, or for which
no time is left, says so and keeps nobody from going on.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.engine import asking
from tests.bench.engine.asking import Answers, Asking
from tests.bench.engine.images import save_images
from tests.bench.engine.journal import Event, read_journal
from tests.bench.engine.measured import FOLDER, STARTED
from tests.bench.engine.model import save_model
from tests.bench.engine.node import MODEL, CardReader, Node, NotReadyError, Program
from tests.bench.engine.questions import question_of
from tests.bench.engine.sizes import TINY, Sizes
from tests.bench.engine.table import table_of

# Until what happened a moment ago is in a worker's files, which are written twice a second.
WRITTEN_SECONDS = 1.2
CALLERS_A_PROCESS = 4  # each sends 32 MiB a request, and reads its stream, on one thread of Python
LEAST_SECONDS = 15.0  # a section with less is left out
LOAD_SECONDS = 200.0  # with an empty cache; after that, the next way
MODEL_SECONDS = 180.0
# Ways to load the model, the fastest first: where one fails, the next may do.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"compile": "steps", "merge_weights": False, "one_row_kernel": False},
    {"compile": "none"},
)


@dataclass(frozen=True)
class Wanted:
    """What a run is to do.

    :ivar model: a folder to find the model in, or to save it.
    :ivar cache: a folder of compiled code that stays; None: one of this run, empty at first.
    :ivar options: of the engine, beside the benchmark's own.
    """

    sizes: Sizes
    minutes: float
    out: Path
    model: Path | None = None
    cache: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Bench:
    """The means that sections share."""

    def __init__(self, wanted: Wanted) -> None:
        self.sizes = wanted.sizes
        self.out = wanted.out
        self.until = time.monotonic() + 60 * wanted.minutes
        self.options = wanted.options
        self.folder = Path(tempfile.mkdtemp(prefix="engine-bench-"))
        self.cache = wanted.cache or self.folder
        self.model = wanted.model or self.folder / "model"
        self.results: dict[str, Any] = {"sizes": asdict(self.sizes), "options": self.options}
        self.node = Node(self.folder / "node")
        self.workers: dict[int, Program] = {}
        self.images: list[str] = []
        self.mixed_images: list[str] = []
        self.question = 1
        self._reader = CardReader() if self.on_card else None
        self._way: dict[str, Any] = {}
        self._section, self._section_until = "", self.until
        self._has_gateway = False

    @property
    def on_card(self) -> bool:
        """Whether there is one; else it is a trial of this program."""
        return self.sizes.device == "cuda"

    @property
    def left(self) -> float:
        """Seconds of the section's time."""
        until: float = min(self.until, self._section_until)
        return until - time.monotonic()

    def part(self, name: str) -> dict[str, Any]:
        """What a section found; empty without it."""
        found = self.results.get(name)
        return found if isinstance(found, dict) else {}

    # Sections.

    def begin(self) -> None:
        """What all runs need."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "requests.jsonl").unlink(missing_ok=True)
        self.section("machine", self._machine)
        self.section("model", self._save_model)
        if self._reader:
            self._reader.start()

    def section(self, name: str, run: Callable[[], Any], seconds: float = 1e9) -> None:
        """One section, in so many seconds at most; its results are written at once."""
        began = time.monotonic()
        self._section_until, self._section = began + seconds, name
        if self.left < min(LEAST_SECONDS, seconds):
            self.results[name] = {"cut_short": "left out: no time was left"}
            self._write()
            return
        print(f"[{time.strftime('%H:%M:%S')}] {name} ...", flush=True)
        found: dict[str, Any] = {}
        cpu = self.node.cpu_seconds()
        try:
            if self._reader:
                with self._reader.during(found):
                    found.update(run())
            else:
                found.update(run())
        except Exception as error:  # noqa: BLE001 - what was measured before is worth having
            found["error"] = f"{type(error).__name__}: {error}"[-4000:]
            found["trace"] = traceback.format_exc()[-1500:]
        took = time.monotonic() - began
        used = self.node.cpu_seconds().items()
        found["cores"] = {
            name: round((seconds - cpu.get(name, 0.0)) / took, 2) for name, seconds in used
        }
        found["section_seconds"] = round(took, 1)
        self.results[name] = found
        print(json.dumps(found, indent=1), flush=True)
        self._write()

    def finish(self) -> None:
        """End all processes; print the table."""
        self.node.close()
        if self._reader:
            self._reader.stop()
        self._write()
        print("\n".join(table_of(self.results)), flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Workers.

    def load(self, *numbers: int) -> dict[str, Any]:
        """Gateway and workers, no code compiled yet, in the fastest way that works."""
        self.need_gateway()
        failed: list[dict[str, Any]] = []
        for self._way in WAYS:
            for number in numbers:
                self.start_worker(number)
            try:
                seconds = [self.ready(number, min(LOAD_SECONDS, self.left)) for number in numbers]
            except NotReadyError as error:
                failed.append({**self._way, "error": str(error)[-3000:]})
                for number in numbers:
                    self.workers.pop(number).stop(signal.SIGKILL)
                if self.left < LEAST_SECONDS:
                    break
            else:
                found = {"seconds": max(seconds), "failed": failed, "way": self._way}
                return found | {"phases": self.phases(numbers[0])}
        raise NotReadyError(json.dumps(failed))

    def need_gateway(self) -> None:
        """The front door, once."""
        if not self._has_gateway:
            self.node.start_gateway()
            self._has_gateway = True

    def need_worker(self, number: int = 0) -> None:
        """One that died is replaced, and the section before is told to have killed it."""
        self.need_gateway()
        worker = self.workers.get(number)
        if worker is None or not worker.runs:
            died = worker.end_of_log()[-3000:] if worker else "never started"
            self.results.setdefault("deaths", []).append(died)
            self.start_worker(number)
            self.ready(number, min(90.0, self.left))

    def start_worker(self, number: int = 0, **more: Any) -> None:
        """A worker on the card of its number; see ``ready``."""
        options = {
            "path": str(self.model),
            "device": self.sizes.device,
            "cache_tokens": self.sizes.cache_tokens,
            "max_new_tokens": self.sizes.answer_tokens,
            **self._way,
            **self.options,
            **more,
        }
        cpus = max(1, min(10, len(os.sched_getaffinity(0)) - 4))
        place = self.place(number)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        environment = {
            "TORCHINDUCTOR_CACHE_DIR": str(self.cache / "inductor"),
            "TRITON_CACHE_DIR": str(self.cache / "triton"),
            "XDG_CACHE_HOME": str(self.cache / "cache"),
            FOLDER: str(place),
            STARTED: str(time.time()),
            **({"CUDA_VISIBLE_DEVICES": str(number)} if self.on_card else {}),
        }
        self.workers[number] = self.node.start_worker(
            options, self.sizes.slots, cpus, environment, number
        )

    def ready(self, number: int, seconds: float) -> float:
        """Wait for a worker; its seconds from exec to READY. Raises NotReadyError."""
        return self.workers[number].wait_until_ready(seconds)

    def place(self, number: int) -> Path:
        """Where a worker writes its figures."""
        return self.folder / f"figures-{number}"

    def figures(self, number: int = 0) -> dict[str, Any]:
        """What a worker's allocator counted, and more, as it writes it down twice a second."""
        file = self.place(number) / "figures.json"
        time.sleep(WRITTEN_SECONDS)
        return json.loads(file.read_text()) if file.exists() else {}

    def phases(self, number: int = 0) -> dict[str, float]:
        """Where the time of a worker's load went."""
        seconds = self.figures(number).get("phases", {})
        return {name: round(value, 2) for name, value in seconds.items()}

    def journal(self, number: int = 0) -> list[Event]:
        """What a worker did."""
        time.sleep(WRITTEN_SECONDS)
        return read_journal(self.place(number) / "journal.jsonl")

    # Callers.

    def ask(self, **wanted: Any) -> Answers:
        """Have callers ask; all that came."""
        return self.finish_asking(self.start_asking(**wanted))

    def start_asking(
        self,
        callers: int,
        requests: int,
        processes: int = 0,
        seconds: float = 1e9,
        **wanted: Any,
    ) -> Asking:
        """Have callers ask from now on, for so many seconds at most.

        :param processes: of callers; 0: as many as keep up.
        """
        common = {
            "port": self.node.port,
            "model": MODEL,
            "images": self.images,
            "questions": [self.question],
            "answers": [self.sizes.answer_tokens],
            **wanted,
        }
        processes = processes or -(-callers // CALLERS_A_PROCESS)
        left = min(seconds, self.left - asking.ENDING_SECONDS)
        return Asking(callers, requests, processes, left, common)

    def finish_asking(self, asked: Asking) -> Answers:
        """Wait for them; all that came."""
        told = asked.collect(lambda: self.left + asking.ENDING_SECONDS)
        asking.keep(told, self._section, self.out / "requests.jsonl")
        return told

    # Their own.

    def _machine(self) -> dict[str, Any]:
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        found: dict[str, Any] = {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cpus": len(os.sched_getaffinity(0)),
        }
        if self.on_card:
            import pynvml  # noqa: PLC0415

            pynvml.nvmlInit()
            card = pynvml.nvmlDeviceGetHandleByIndex(0)
            found["cards"] = int(pynvml.nvmlDeviceGetCount())
            found["card"] = str(pynvml.nvmlDeviceGetName(card))
            found["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
        return found

    def _save_model(self) -> dict[str, Any]:
        # A process of its own: nothing of it stays on the card.
        words = [str(self.model), *(["tiny"] if self.sizes is TINY else [])]
        with subprocess.Popen([sys.executable, "-m", "tests.bench.engine.model", *words]) as saving:
            self.images = save_images(self.folder, [self.sizes.image_side], 4)
            small = [side for side in (512, 1024, 2048) if side < self.sizes.image_side]
            self.mixed_images = self.images[:2] + save_images(self.folder, small, 2)
            try:
                saving.wait(MODEL_SECONDS)
            except subprocess.TimeoutExpired:
                saving.kill()
                raise
        save_model(self.model, self.sizes)
        self.question = len(question_of(str(self.model), self.sizes))
        return {"image_bytes": Path(self.images[0]).stat().st_size}

    def _write(self) -> None:
        (self.out / "engine.json").write_text(json.dumps(self.results, indent=1))
        (self.out / "engine.md").write_text("\n".join(table_of(self.results)) + "\n")
        for log in self.node.folder.glob("*.log"):
            shutil.copy(log, self.out / log.name)
        for number in self.workers:
            journal = self.place(number) / "journal.jsonl"
            if journal.exists():
                shutil.copy(journal, self.out / f"journal-{number}.jsonl")
        if self._reader:
            (self.out / "card.json").write_text(json.dumps(self._reader.rows))
