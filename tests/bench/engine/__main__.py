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

from tests.bench.engine.callers import Spec
from tests.bench.engine.images import save_images
from tests.bench.engine.model import save_model
from tests.bench.engine.node import MODEL, CardReader, Node, Program
from tests.bench.engine.questions import question_of
from tests.bench.engine.sizes import CARD, TINY, Sizes
from tests.bench.engine.table import table_of

SECTIONS = ("naive", "alone", "together", "mixed", "killed")
CLIENT_PROCESSES = 4
LEAST_SECONDS = 20.0  # a section with less is left out


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

    def run(self) -> None:
        """All sections, in their order."""
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            self._section("machine", self._machine)
            self._section("model", self._model)
            if self.reader:
                self.reader.start()
            if "naive" in self.wanted:
                self._section("naive", self._naive)
            self._section("load_cold", self._load)
            for name in ("alone", "together", "mixed", "killed"):
                if name in self.wanted and self.worker is not None:
                    self._section(name, getattr(self, f"_{name}"))
        finally:
            self._finish()

    @property
    def left(self) -> float:
        """Seconds of the run's time."""
        return self.until - time.monotonic()

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
        kind = "tiny" if self.sizes is TINY else "card"
        text = self._program(
            "tests.bench.engine.naive",
            str(self.model),
            self.images[0],
            str(self.sizes.naive),
            kind,
            seconds=150,
        )
        return json.loads(text.splitlines()[-1])

    def _load(self) -> dict[str, Any]:
        self.node.start_gateway()
        self.results["cache_folder"] = str(self.folder / "inductor")
        self.worker = self._start_worker()
        try:
            return {"seconds": self.worker.wait_until_ready(max(60.0, self.left))}
        except BaseException:
            self.worker = None
            raise

    def _alone(self) -> dict[str, Any]:
        self._ask(callers=1, requests=2, processes=1)
        found = _summary(self._ask(callers=1, requests=self.sizes.alone, processes=1))
        urls = self._ask(callers=1, requests=3, processes=1, data_url=True)
        found["p50_seconds_as_data_url"] = _summary(urls)["p50_seconds"]
        return found

    def _together(self) -> dict[str, Any]:
        callers = self.sizes.callers
        self._ask(callers=callers, requests=callers, processes=CLIENT_PROCESSES)
        requests = self.sizes.together
        return _summary(self._ask(callers=callers, requests=requests, processes=CLIENT_PROCESSES))

    def _mixed(self) -> dict[str, Any]:
        sizes = self.sizes
        room = sizes.cache_tokens - sizes.prompt_tokens - self.question
        answers = [n for n in (16, 64, 128, 256) if n <= room] or [sizes.answer_tokens]
        before = self._allocations()
        found = _summary(
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
        assert self.worker is not None
        callers = self.sizes.callers
        asked = self._start_asking(
            callers=callers, requests=8 * callers, processes=CLIENT_PROCESSES
        )
        time.sleep(min(5.0, self.left / 10))
        killed = time.time()
        self.worker.stop(signal.SIGKILL)
        self.worker = self._start_worker()
        ready = self.worker.wait_until_ready(max(30.0, self.left))
        told = self._finish_asking(asked)
        after = sorted(one["began"] + one["ended"] for one in told)
        answered_after = [at for at in after if at > killed]
        rate = self.results.get("together", {}).get("requests_per_second") or 0
        found = _summary(told)
        found.update(
            load_seconds_warm=ready,
            first_answer_seconds_after_kill=answered_after[0] - killed if answered_after else None,
            full_rate_seconds_after_kill=_full_rate(answered_after, killed, rate),
        )
        return found

    # Their means.

    def _start_worker(self) -> Program:
        options = {
            "path": str(self.model),
            "device": self.sizes.device,
            "cache_tokens": self.sizes.cache_tokens,
            "max_new_tokens": self.sizes.answer_tokens,
            **self.set,
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
                until=time.time() + self.left - LEAST_SECONDS,
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
            out, _ = process.communicate(timeout=max(30.0, self.left))
            told += json.loads(out)
        return told

    def _program(self, module: str, *words: str, seconds: float) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            stdout=subprocess.PIPE,
            check=True,
            timeout=min(seconds, max(10.0, self.left)),
        )
        return done.stdout.decode()

    def _section(self, name: str, run: Callable[[], Any]) -> None:
        began = time.monotonic()
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

    def _finish(self) -> None:
        self.node.close()
        if self.reader:
            self.reader.stop()
        for log in sorted(self.node.folder.glob("*.log"))[-4:]:
            shutil.copy(log, self.out / log.name)
        self._write()
        lines = table_of(self.results)
        (self.out / "engine.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines), flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _summary(told: list[dict[str, Any]]) -> dict[str, Any]:
    good = [one for one in told if not one["error"]]
    errors = sorted({one["error"] for one in told if one["error"]})
    found: dict[str, Any] = {
        "requests": len(told),
        "failures": len(told) - len(good),
        "errors": errors[:5],
    }
    if not good:
        return found
    took = sorted(one["ended"] for one in good)
    span = max(one["began"] + one["ended"] for one in good) - min(one["began"] for one in good)
    gaps = sorted(one["longest_gap"] for one in good)
    steps = sorted(one["middle_gap"] for one in good)
    found.update(
        requests_per_second=len(good) / span,
        tokens_per_second=sum(one["tokens"] for one in good) / span,
        p50_seconds=took[len(took) // 2],
        p95_seconds=took[min(len(took) - 1, int(len(took) * 0.95))],
        most_seconds=took[-1],
        upload_seconds=sorted(one["uploaded"] for one in good)[len(good) // 2],
        first_token_seconds=sorted(one["first"] for one in good)[len(good) // 2],
        milliseconds_per_step=1000 * steps[len(steps) // 2],
        longest_gap_milliseconds=1000 * gaps[-1],
        p95_of_longest_gaps_milliseconds=1000 * gaps[min(len(gaps) - 1, int(len(gaps) * 0.95))],
        prompt_tokens=good[0]["prompt_tokens"],
    )
    return found


def _full_rate(answers: list[float], since: float, rate: float) -> float | None:
    """Seconds until answers come as often again as before, over a second; None if they don't."""
    for place, at in enumerate(answers):
        count = sum(1 for other in answers[place:] if other < at + 1.0)
        if rate and count >= 0.9 * rate:
            return at - since
    return None


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
        # On a busy machine torch's threads would wait for each other most of the time.
        os.environ["OMP_NUM_THREADS"] = "1"
    bench = Bench(arguments)
    bench.run()
    return int(any("error" in part for part in bench.results.values() if isinstance(part, dict)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
