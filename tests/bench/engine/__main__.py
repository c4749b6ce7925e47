"""``python -m tests.bench.engine [--tiny] [--minutes 9] [--out FOLDER] [--set NAME=JSON ...]``.

Builds a model of MedGemma 4B's shape with random weights, runs the naive loop, then gateway and
worker, and prints the table. Results are in ``engine.json`` of the folder from the first minute
on; the worker's logs are beside it. A section that fails, or for which no time is left, says so.
"""

import argparse
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.engine.callers import Spec, Told
from tests.bench.engine.images import save_images
from tests.bench.engine.model import save_model
from tests.bench.engine.node import MODEL, CardReader, Node, NotReadyError, Program
from tests.bench.engine.questions import question_of
from tests.bench.engine.sizes import CARD, TINY, Sizes
from tests.bench.engine.summary import full_rate, summary_of
from tests.bench.engine.table import table_of

# By worth: what comes last has the time that is left. The naive loop has the card for itself then.
SECTIONS = ("alone", "together", "mixed", "killed", "reproducible", "naive")
SECONDS = {"alone": 40, "together": 70, "mixed": 110, "killed": 130, "reproducible": 90}
CLIENT_PROCESSES = 4
LEAST_SECONDS = 20.0  # a section with less is left out
ENDING_SECONDS = 5.0  # of a section: requests that run then may end
KILLED_SECONDS = 12  # of requests at full rate, a third of them before the kill
LOAD_SECONDS = 200.0  # with an empty cache; after that, the next way
# Ways to load the model, the fastest first: where one fails, the next may do.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"compile": "steps", "merge_weights": False, "one_row_kernel": False},
    {"compile": "none"},
)


class Bench:
    """One run: the model, the node, the sections, the results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.sizes: Sizes = TINY if arguments.tiny else CARD
        self.out: Path = arguments.out
        self.until: float = time.monotonic() + 60 * arguments.minutes
        self.wanted = arguments.sections or list(SECTIONS)
        self.set = {name: json.loads(value) for name, _, value in arguments.set}
        self.folder = Path(tempfile.mkdtemp(prefix="engine-bench-"))
        self.model = arguments.model or self.folder / "model"
        self.results: dict[str, Any] = {"sizes": asdict(self.sizes), "options": self.set}
        self.reader = CardReader() if self.sizes.device == "cuda" else None
        self.node = Node(self.folder / "node")
        self.worker: Program | None = None
        self.question = 1
        self.way: dict[str, Any] = {}
        self.section, self.section_until = "", self.until

    def run(self) -> None:
        """All sections, in their order."""
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            self._section("machine", self._machine)
            self._section("model", self._model)
            if self.reader:
                self.reader.start()
            if set(self.wanted) - {"naive"}:
                self._section("load_cold", self._load)
            for name in SECTIONS:
                if name in self.wanted:
                    self._section(name, getattr(self, f"_{name}"), SECONDS.get(name, 120))
        finally:
            self._finish()

    @property
    def left(self) -> float:
        """Seconds of the section's time."""
        until: float = min(self.until, self.section_until)
        return until - time.monotonic()

    # Sections.

    def _machine(self) -> dict[str, Any]:
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        found: dict[str, Any] = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cpus": len(os.sched_getaffinity(0)),
        }
        if self.sizes.device == "cuda":
            import pynvml  # noqa: PLC0415

            pynvml.nvmlInit()
            card = pynvml.nvmlDeviceGetHandleByIndex(0)
            found["card"] = str(pynvml.nvmlDeviceGetName(card))
            found["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
        return found

    def _model(self) -> dict[str, Any]:
        # A process of its own: nothing of it stays on the card.
        words = [str(self.model), *(["tiny"] if self.sizes is TINY else [])]
        self._program("tests.bench.engine.model", *words, seconds=180)
        sides = [self.sizes.image_side]
        small = [side for side in (512, 1024, 2048) if side < self.sizes.image_side]
        self.images = save_images(self.folder, sides, 4)
        self.mixed_images = self.images[:2] + save_images(self.folder, small, 2)
        self.question = len(question_of(str(self.model), self.sizes))
        save_model(self.model, self.sizes)
        return {"image_bytes": Path(self.images[0]).stat().st_size}

    def _naive(self) -> Any:
        self.node.close()  # it has the card for itself
        kind = "tiny" if self.sizes is TINY else "card"
        text = self._program(
            "tests.bench.engine.naive",
            str(self.model),
            self.images[0],
            str(self.sizes.naive),
            kind,
            seconds=120,
        )
        return json.loads(text.splitlines()[-1])

    def _load(self) -> dict[str, Any]:
        self.node.start_gateway()
        found: dict[str, Any] = {"failed": []}
        for way in WAYS:
            self.way = way
            self.worker = self._start_worker()
            try:
                found["seconds"] = self.worker.wait_until_ready(min(LOAD_SECONDS, self.left))
            except NotReadyError as error:
                found["failed"].append({**way, "error": str(error)[-3000:]})
                self.worker.stop(signal.SIGKILL)
                if self.left < LEAST_SECONDS:
                    break
            else:
                return {**found, "way": way}
        raise NotReadyError(json.dumps(found["failed"]))

    def _need_worker(self) -> None:
        """One that died is replaced, and the section before is told to have killed it."""
        if self.worker is None or not self.worker.runs:
            died = self.worker.end_of_log()[-3000:] if self.worker else "never started"
            self.results.setdefault("deaths", []).append(died)
            self.worker = self._start_worker()
            self.worker.wait_until_ready(min(90.0, self.left))

    def _alone(self) -> dict[str, Any]:
        self._need_worker()
        self._ask(callers=1, requests=2, processes=1)
        found = summary_of(self._ask(callers=1, requests=self.sizes.alone, processes=1))
        urls = self._ask(callers=1, requests=3, processes=1, data_url=True)
        found["p50_seconds_as_data_url"] = summary_of(urls)["p50_seconds"]
        return found

    def _together(self) -> dict[str, Any]:
        self._need_worker()
        callers = self.sizes.callers
        self._ask(callers=callers, requests=callers, processes=CLIENT_PROCESSES)
        requests = self.sizes.together
        return summary_of(self._ask(callers=callers, requests=requests, processes=CLIENT_PROCESSES))

    def _mixed(self) -> dict[str, Any]:
        self._need_worker()
        sizes = self.sizes
        room = sizes.cache_tokens - sizes.prompt_tokens - self.question
        answers = [n for n in (16, 32, 64, 128) if n <= room] or [sizes.answer_tokens]
        before = self._allocations()
        found = summary_of(
            self._ask(
                callers=sizes.callers,
                requests=sizes.mixed,
                processes=CLIENT_PROCESSES,
                images=self.mixed_images,
                questions=[1, self.question, 2 * self.question],
                answers=answers,
            )
        )
        found["memory_before"], found["memory_after"] = before, self._allocations()
        return found

    def _killed(self) -> dict[str, Any]:
        self._need_worker()
        assert self.worker is not None
        callers = self.sizes.callers
        rate = self.results.get("together", {}).get("requests_per_second") or 0
        requests = max(8 * callers, int(KILLED_SECONDS * rate))
        # Whole answers: one of which a part is told can't be tried again by another worker.
        asked = self._start_asking(
            callers=callers, requests=requests, processes=CLIENT_PROCESSES, stream=False
        )
        time.sleep(min(4.0, self.left / 10))
        killed = time.time()
        self.worker.stop(signal.SIGKILL)
        self.worker = self._start_worker()
        ready = self.worker.wait_until_ready(max(30.0, self.left))
        told = self._finish_asking(asked)
        after = sorted(one["began"] + one["ended"] for one in told)
        answered_after = [at for at in after if at > killed]
        found = summary_of(told)
        found.update(
            load_seconds_warm=ready,
            first_answer_seconds_after_kill=answered_after[0] - killed if answered_after else None,
            full_rate_seconds_after_kill=full_rate(answered_after, killed, rate),
        )
        return found

    def _reproducible(self) -> dict[str, Any]:
        """One shape for all steps: what a request is answered hangs on nothing but itself."""
        if self.worker is not None:
            self.worker.stop()
        self.worker = self._start_worker(reproducible=True)
        found: dict[str, Any] = {"load_seconds": self.worker.wait_until_ready(self.left)}
        one = {"images": self.images[:1], "texts": True}
        alone = self._ask(callers=1, requests=3, processes=1, **one)
        callers = self.sizes.callers
        company = self._start_asking(
            callers=callers - 1, requests=3 * callers, processes=1, images=self.mixed_images
        )
        time.sleep(1.0)
        beside = self._ask(callers=1, requests=5, processes=1, **one)
        self._finish_asking(company)
        texts = {told["text"] for told in alone + beside if not told["error"]}
        found.update(summary_of(alone), answers=len(alone + beside), different_answers=len(texts))
        return found

    # Their means.

    def _start_worker(self, **more: Any) -> Program:
        options = {
            "path": str(self.model),
            "device": self.sizes.device,
            "cache_tokens": self.sizes.cache_tokens,
            "max_new_tokens": self.sizes.answer_tokens,
            **self.way,
            **self.set,
            **more,
        }
        cpus = max(1, min(10, len(os.sched_getaffinity(0)) - 4))
        cache = {
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "TRITON_CACHE_DIR": str(self.folder / "triton"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "GPUWARDEN_ENGINE_FIGURES": str(self.folder / "figures.json"),
        }
        return self.node.start_worker(options, self.sizes.slots, cpus, cache)

    def _allocations(self) -> Any:
        """What the worker's allocator counted, as it writes it down each second."""
        file = self.folder / "figures.json"
        time.sleep(1.2)
        return json.loads(file.read_text()) if file.exists() else None

    def _ask(self, **wanted: Any) -> list[dict[str, Any]]:
        return self._finish_asking(self._start_asking(**wanted))

    def _start_asking(
        self, callers: int, requests: int, processes: int, **wanted: Any
    ) -> list[subprocess.Popen[bytes]]:
        processes = min(processes, callers)
        specs = [
            Spec(
                port=self.node.port,
                model=MODEL,
                callers=callers // processes,
                requests=requests // processes,
                until=time.time() + self.left - ENDING_SECONDS,
                seed=number,
                **{
                    "images": self.images,
                    "questions": [self.question],
                    "answers": [self.sizes.answer_tokens],
                    **wanted,
                },
            )
            for number in range(processes)
        ]
        return [
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.engine.callers", json.dumps(asdict(spec))],
                stdout=subprocess.PIPE,
            )
            for spec in specs
        ]

    def _finish_asking(self, asked: list[subprocess.Popen[bytes]]) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        for process in asked:
            try:
                out, _ = process.communicate(timeout=max(10.0, self.left + ENDING_SECONDS))
                told += json.loads(out)
            except (subprocess.TimeoutExpired, ValueError) as error:
                process.kill()
                process.wait()
                told.append(asdict(Told(error=f"callers ended with {type(error).__name__}")))
        bare = [{**one, "text": ""} for one in told]
        with (self.out / "requests.jsonl").open("a") as file:
            file.write(json.dumps({"section": self.section, "requests": bare}) + "\n")
        return told

    def _program(self, module: str, *words: str, seconds: float) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            stdout=subprocess.PIPE,
            check=True,
            timeout=min(seconds, max(10.0, self.left)),
        )
        return done.stdout.decode()

    def _section(self, name: str, run: Callable[[], Any], seconds: float = 1e9) -> None:
        began = time.monotonic()
        self.section_until, self.section = began + seconds, name
        if self.left < LEAST_SECONDS:
            self.results[name] = {"error": "no time was left"}
            self._write()
            return
        print(f"[{time.strftime('%H:%M:%S')}] {name} ...", flush=True)
        found: dict[str, Any] = {}
        try:
            if self.reader:
                with self.reader.during(found):
                    found.update(run())
            else:
                found.update(run())
        except Exception as error:  # noqa: BLE001 - what was measured before is worth having
            found["error"] = f"{type(error).__name__}: {error}"[-4000:]
            found["trace"] = traceback.format_exc()[-1500:]
        found["section_seconds"] = round(time.monotonic() - began, 1)
        self.results[name] = found
        print(json.dumps(found, indent=1), flush=True)
        self._write()

    def _write(self) -> None:
        (self.out / "engine.json").write_text(json.dumps(self.results, indent=1))
        (self.out / "engine.md").write_text("\n".join(table_of(self.results)) + "\n")
        for log in self.node.folder.glob("*.log"):
            shutil.copy(log, self.out / log.name)
        if self.reader:
            (self.out / "card.json").write_text(json.dumps(self.reader.rows))

    def _finish(self) -> None:
        self.node.close()
        if self.reader:
            self.reader.stop()
        self._write()
        print("\n".join(table_of(self.results)), flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def main(words: list[str]) -> int:
    """One run; 0 when all sections have figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine")
    parser.add_argument("--tiny", action="store_true", help="try the program on the CPU")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--model", type=Path, help="a folder to find the model in, or to save it")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "build/engine-bench"))
    )
    parser.add_argument("--sections", nargs="*", choices=SECTIONS)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=lambda text: text.partition("="),
        metavar="OPTION=JSON",
        help="an option of the engine",
    )
    arguments = parser.parse_args(words)
    if arguments.tiny:
        # Where other processes want the cores too, torch's threads wait for each other at each
        # operation: a token then takes 0.7 s in place of 2 ms.
        os.environ["OMP_NUM_THREADS"] = "1"
    bench = Bench(arguments)
    bench.run()
    return int(any("error" in part for part in bench.results.values() if isinstance(part, dict)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
