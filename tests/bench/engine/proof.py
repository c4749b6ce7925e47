# SPDX-License-Identifier: Apache-2.0
"""What is proved on a card rather than measured: programs side by side, each with its own file.

Nothing here is timed, so all but the trial of memory run at once: the engine against a teacher, its
answers in all thermal states, its tests. Each is given what time is left, and is ended then.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tests.bench.engine.bench import Wanted
from tests.bench.engine.sizes import TINY
from tests.bench.engine.table import Row, of_states, row

ENDING_SECONDS = 12.0  # before the end, so that all have written and the table is printed
MEMORY_SECONDS = 90.0
MODEL_SECONDS = 120.0


@dataclass
class Running:
    """A program and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    began: float


class Proof:
    """One run of all proofs."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._tiny = wanted.sizes is TINY
        self._out = wanted.out
        self._out.mkdir(parents=True, exist_ok=True)
        self._model = wanted.model or self._out / "model"
        self._until = time.monotonic() + 60 * wanted.minutes - ENDING_SECONDS
        self.results: dict[str, Any] = {}

    def run(self) -> None:
        """All of it."""
        kind = ["tiny"] if self._tiny else []
        self._alone("model", MODEL_SECONDS, "tests.bench.engine.model", str(self._model), *kind)
        if not self._tiny:
            self._alone("memory", MEMORY_SECONDS, "tests.gpu.memory")
        running = [self._teacher(), self._states()]
        if find_spec("pytest"):
            running.append(self._start("tests", *_TESTS))
        else:
            self.results["tests"] = {"cut_short": "pytest is not installed: its wheels are missing"}
        for one in running:
            self._finish(one, self._until)
        self._write()

    def table(self) -> list[str]:
        """What came of it, in lines of Markdown."""
        return table_of(self.results)

    def _teacher(self) -> Running:
        left = max(1.0, self._until - time.monotonic() - 2)
        kind = "tiny" if self._tiny else "card"
        place = str(self._out / "teacher.json")
        words = (str(self._model), kind, place, str(left))
        return self._start("teacher", "tests.bench.engine.teacher", *words)

    def _states(self) -> Running:
        minutes = (self._until - time.monotonic() - 8) / 60
        words = ["tests.bench.engine", "one-card", "--model", str(self._model)]
        words += ["--out", str(self._out / "states"), "--minutes", f"{minutes:.2f}"]
        words += ["--tiny"] if self._tiny else []
        for name, value in self._wanted.options.items():
            words += ["--set", f"{name}={json.dumps(value)}"]
        return self._start("states", *words, "--sections", "reproducible")

    def _alone(self, name: str, seconds: float, *words: str) -> None:
        self._finish(self._start(name, *words), min(self._until, time.monotonic() + seconds))

    def _start(self, name: str, *words: str) -> Running:
        print(f"[{time.strftime('%H:%M:%S')}] {name} ...", flush=True)
        cache = self._wanted.cache or self._out / "cache"
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(cache / name / "inductor"),
            "TRITON_CACHE_DIR": str(cache / name / "triton"),
            **({"GPUWARDEN_TRY_ON_CPU": "1"} if self._tiny else {}),
        }
        with (self._out / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], stdout=log, stderr=log, env=environment
            )
        return Running(name, process, time.monotonic())

    def _finish(self, one: Running, until: float) -> None:
        found: dict[str, Any] = {}
        try:
            one.process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.terminate()
            found["cut_short"] = "its time was up"
            try:
                one.process.wait(5)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        found["status"] = one.process.returncode
        found["seconds"] = round(time.monotonic() - one.began, 1)
        log = (self._out / f"{one.name}.log").read_text(errors="replace")
        found["log"] = log[-2500:]
        self.results[one.name] = found | self._told(one.name)
        print(f"--- {one.name}: {json.dumps({**found, 'log': None})}\n{log[-2500:]}", flush=True)
        self._write()

    def _told(self, name: str) -> dict[str, Any]:
        """What a program wrote down."""
        files = {
            "teacher": self._out / "teacher.json",
            "states": self._out / "states" / "engine.json",
        }
        file = files.get(name)
        if file is None or not file.exists():
            return {}
        told: dict[str, Any] = json.loads(file.read_text())
        return told

    def _write(self) -> None:
        (self._out / "proof.json").write_text(json.dumps(self.results, indent=1))
        (self._out / "proof.md").write_text("\n".join(self.table()) + "\n")


# Without the project's own settings and plugins, which such a machine has not.
# torch traces its compiler into a logger of its own, thousands of empty lines for each test.
_TESTS = (
    *("pytest", "-q", "-rA", "-c", os.devnull, "--rootdir", ".", "--noconftest"),
    "--log-disable=torch.__trace",
    "tests/gpu/test_engine.py",
)


def table_of(results: dict[str, Any]) -> list[str]:
    """What came of the proofs, in lines of Markdown. Pure."""
    teacher = results.get("teacher", {})
    states = results.get("states", {}).get("reproducible", {})
    rows = [*_of_teacher(teacher), *of_states(states)]
    for name in ("memory", "tests"):
        if name in results:
            rows.append(row(f"{name}: exit status", results[name].get("status"), most=0))
    lines = ["| what | wanted | measured | |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    remarks = [
        f"- {name}: {part[word]}"
        for name, part in [*results.items(), *teacher.items(), ("states", states)]
        for word in ("cut_short", "error")
        if isinstance(part, dict) and word in part
    ]
    return [*lines, "", *remarks]


def _of_teacher(teacher: dict[str, Any]) -> list[Row]:
    seen, int8 = teacher.get("reference", {}), teacher.get("int8", {})
    engine, fixed = teacher.get("engine", {}), teacher.get("fixed_bucket", {})
    gib = 2**30
    return [
        row("teacher: choices compared", seen.get("choices")),
        row("teacher: the same", seen.get("equal")),
        row("teacher: other ones", seen.get("other")),
        row("teacher: of them, margin below the noise", seen.get("other_with_margin_below_noise")),
        row("teacher: of them, beyond the noise", seen.get("other_beyond_noise"), most=0),
        row("noise of this run (largest; median), logits", seen.get("noise")),
        row("median of the noise", seen.get("noise_p50")),
        row("median of the margins", seen.get("margin_p50")),
        row("different tokens in an answer", engine.get("different_tokens_of_each")),
        row("fixed bucket: answers in other company", fixed.get("answers")),
        row("fixed bucket: other ones", fixed.get("different"), most=0),
        row("int8 cache: choices, the same of", int8.get("choices")),
        row("int8 cache: the same", int8.get("equal")),
        row("int8 cache: beyond the noise of bfloat16", int8.get("other_beyond_noise")),
        row("int8 cache: answers like without", int8.get("answers_like_without")),
        row("int8 cache: tokens until they part, median", int8.get("tokens_until_they_part")),
        row("allocated, GiB", _share(engine.get("allocated_bytes"), gib)),
        row("int8 cache: allocated, GiB", _share(int8.get("allocated_bytes"), gib)),
    ]


def _share(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def run(wanted: Wanted) -> int:
    """All proofs; 0 where all ended well."""
    proof = Proof(wanted)
    proof.run()
    print("\n".join(proof.table()), flush=True)
    return int(any(part.get("status") != 0 for part in proof.results.values()))
