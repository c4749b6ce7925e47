# SPDX-License-Identifier: Apache-2.0
"""The sections on one card, by worth: what comes last has the time that is left."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import fields
from typing import Any

from gpuwarden.values import ThermalState
from gpuwarden.worker.engines.transformers.options import EngineOptions
from tests.bench.engine.asking import Answers
from tests.bench.engine.bench import Bench
from tests.bench.engine.gaps import causes_of
from tests.bench.engine.journal import read_journal
from tests.bench.engine.rates import Came
from tests.bench.engine.sizes import TINY
from tests.bench.engine.stages import stages_between
from tests.bench.engine.summary import summary_of

NAIVE_SECONDS = 85.0
BEFORE_KILL_SECONDS = 9.0
RAMP_SECONDS = 3.0  # of them, until callers who all began together are spread
AFTER_KILL_SECONDS = 12.0  # of requests at full rate, beside those before
HOT_SECONDS = 3.0  # and as long before and after, while callers ask all the time
MANY = 10_000  # requests: as many as there is time for
SETTLE_SECONDS = 1.5  # until the front door has read a card's state, and its workers heard of it
CACHE_OPTION = "cache_dtype"


class OneCard:
    """Gateway and one worker, and a naive loop that has the card for itself before."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._sizes = bench.sizes
        # name, what it does, seconds at most
        self.sections = (
            *((("floor", self.floor, 40.0),) if bench.on_card else ()),
            ("naive", self.naive, NAIVE_SECONDS + 10),
            ("load_cold", self.load_cold, 220.0),
            ("alone", self.alone, 40.0),
            ("together", self.together, 70.0),
            ("mixed", self.mixed, 90.0),
            ("killed", self.killed, 110.0),
            ("reproducible", self.reproducible, 200.0),
            ("int8", self.int8, 130.0),
        )

    def floor(self) -> dict[str, Any]:
        """What the card itself takes for a step, before anything else is on it."""
        words = [sys.executable, "-m", "tests.bench.engine.floor", str(self._bench.model)]
        told = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=self._bench.left)
        found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
        return found

    def naive(self) -> dict[str, Any]:
        """What a page's script does, before anything else is on the card."""
        bench, sizes = self._bench, self._sizes
        seconds = min(NAIVE_SECONDS, bench.left - 10)
        kind = "tiny" if sizes is TINY else "card"
        file = bench.out / "naive.jsonl"
        words = [str(bench.model), bench.images[0], str(sizes.naive), kind, str(seconds)]
        with file.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.engine.naive", *words], stdout=out
            )
            try:
                process.wait(seconds + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        told = [line for line in file.read_text().splitlines() if line.endswith("}")]
        if not told:
            raise RuntimeError(f"the naive loop told nothing, and ended with {process.returncode}")
        found: dict[str, Any] = json.loads(told[-1])
        if found["requests"] < sizes.naive:
            found["cut_short"] = f"{found['requests']} of {sizes.naive} requests: its time was up"
        return found

    def load_cold(self) -> dict[str, Any]:
        """From exec to READY, with an empty cache of compiled code."""
        return self._bench.load(0)

    def alone(self) -> dict[str, Any]:
        """One caller, who waits for each answer."""
        bench = self._bench
        bench.need_worker()
        bench.ask(callers=1, requests=2)
        wanted, before = self._sizes.alone, bench.figures()
        found = summary_of(bench.ask(callers=1, requests=wanted), wanted)
        found["stages_milliseconds"] = stages_between([(before, bench.figures())])
        urls = bench.ask(callers=1, requests=3, data_url=True)
        found["p50_seconds_as_data_url"] = summary_of(urls).get("p50_seconds")
        return found

    def together(self) -> dict[str, Any]:
        """As many callers as slots, each with the next request as soon as it is answered."""
        bench, sizes = self._bench, self._sizes
        bench.need_worker()
        bench.ask(callers=sizes.callers, requests=sizes.callers)
        before = bench.figures()
        told = bench.ask(callers=sizes.callers, requests=sizes.together)
        found = self._streamed(told, sizes.together)
        found["stages_milliseconds"] = stages_between([(before, bench.figures())])
        return found

    def mixed(self) -> dict[str, Any]:
        """Images, questions and answers of mixed sizes; what the allocator does meanwhile."""
        bench, sizes = self._bench, self._sizes
        bench.need_worker()
        room = sizes.cache_tokens - sizes.prompt_tokens - bench.question
        before = bench.figures()
        told = bench.ask(
            callers=sizes.callers,
            requests=sizes.mixed,
            images=bench.mixed_images,
            questions=[1, bench.question, 2 * bench.question],
            answers=[n for n in (16, 32, 64, 128) if n <= room] or [sizes.answer_tokens],
        )
        found = self._streamed(told, sizes.mixed)
        found["memory_before"], found["memory_after"] = before, bench.figures()
        return found

    def killed(self) -> dict[str, Any]:
        """The worker is killed in the midst of requests; a new one is started at once.

        Whole answers: one of which a part is told can't be tried again by another worker.
        """
        bench, sizes = self._bench, self._sizes
        bench.need_worker()
        guess = bench.part("together").get("requests_per_second") or sizes.callers
        requests = int((BEFORE_KILL_SECONDS + AFTER_KILL_SECONDS) * guess)
        began = time.time()
        asked = bench.start_asking(
            callers=sizes.callers, requests=max(8 * sizes.callers, requests), stream=False
        )
        time.sleep(min(BEFORE_KILL_SECONDS, bench.left / 10))
        bench.workers[0].stop(signal.SIGKILL)
        killed = time.time()
        tokens = _told(read_journal(bench.place(0) / "journal.jsonl"))
        bench.start_worker()
        try:
            ready = bench.ready(0, max(5.0, bench.left - 5))
            ready_after = time.time() - killed
        finally:
            told = bench.finish_asking(asked)
        found = summary_of(told, asked.requests)
        found |= {"load_seconds_warm": ready, "ready_seconds_after_kill": ready_after}
        found["phases"] = bench.phases()
        answers = [(one["began"] + one["ended"], 1.0) for one in told if not one["error"]]
        tokens += _told(bench.journal())
        for name, came in (("answers", Came(answers)), ("tokens", Came(tokens))):
            rate = came.usual_rate(min(began + RAMP_SECONDS, killed - 2.0), killed)
            back = came.back_at(killed + 0.2, rate)
            first = next((at for at in came.times if at > killed + 0.2), None)
            found[f"{name}_per_second_before"] = rate
            found[f"first_{name}_seconds_after_kill"] = first and first - killed
            found[f"full_rate_of_{name}_seconds_after_kill"] = back and back - killed
        return found

    def reproducible(self) -> dict[str, Any]:
        """One shape for all steps: what a request is answered hangs on nothing but itself."""
        bench, sizes = self._bench, self._sizes
        self._replace_worker(reproducible=True)
        found: dict[str, Any] = {"load_seconds": bench.ready(0, bench.left)}
        one: dict[str, Any] = {"images": bench.images[:1], "texts": True}
        alone = bench.ask(callers=1, requests=3, **one)
        company = bench.start_asking(
            callers=sizes.callers - 1,
            requests=3 * sizes.callers,
            processes=1,
            images=bench.mixed_images,
        )
        time.sleep(1.0)
        beside = bench.ask(callers=1, requests=5, **one)
        found["beside_others"] = summary_of(bench.finish_asking(company) + beside)
        texts = _texts(alone)
        found |= summary_of(alone)
        found |= _compared("neighbours", beside, texts)
        for name, told in self._in_states(one).items():
            found |= _compared(name, told, texts)
            found[f"{name}_states_told"] = sorted({_state(answer) for answer in told})
        return found

    def int8(self) -> dict[str, Any]:
        """With a KV cache in int8: speed and memory."""
        bench, sizes = self._bench, self._sizes
        if CACHE_OPTION not in {entry.name for entry in fields(EngineOptions)}:
            return {"cut_short": f"this engine has no option {CACHE_OPTION}"}
        self._replace_worker(**{CACHE_OPTION: "int8"})
        found: dict[str, Any] = {"load_seconds": bench.ready(0, bench.left)}
        bench.ask(callers=1, requests=1)
        found["alone"] = summary_of(bench.ask(callers=1, requests=5), 5)
        bench.ask(callers=sizes.callers, requests=sizes.callers)
        wanted = 5 * sizes.callers
        found |= summary_of(bench.ask(callers=sizes.callers, requests=wanted), wanted)
        found["memory"] = bench.figures()
        return found

    # Their means.

    def _streamed(self, told: Answers, wanted: int) -> dict[str, Any]:
        """A summary, and what made streams pause."""
        long = [(at, seconds) for one in told for at, seconds in one["long"]]
        return summary_of(told, wanted) | {"pauses": causes_of(long, self._bench.journal())}

    def _replace_worker(self, **options: Any) -> None:
        self._bench.need_gateway()
        if 0 in self._bench.workers:
            self._bench.workers[0].stop()
        self._bench.start_worker(**options)

    def _in_states(self, one: dict[str, Any]) -> dict[str, Answers]:
        """The same request in a cool node, in eco, and on a card that grows critical meanwhile.

        States are told as a guard tells them, in its file; nothing is set on the card.
        """
        bench = self._bench
        guards = bench.node.guards
        found: dict[str, Answers] = {}
        whole = {**one, "stream": False}
        try:
            found["normal"] = bench.ask(callers=2, requests=4, **whole)
            guards.publish(0, state=ThermalState.ALERT, batch_limit=1, reason="a trial's eco")
            time.sleep(SETTLE_SECONDS)
            found["eco"] = bench.ask(callers=2, requests=4, **whole)
            guards.publish(0)
            time.sleep(SETTLE_SECONDS)
            asked = bench.start_asking(callers=8, requests=MANY, seconds=3 * HOT_SECONDS, **whole)
            time.sleep(HOT_SECONDS)
            guards.publish(0, state=ThermalState.CRITICAL, batch_limit=2)
            time.sleep(HOT_SECONDS)
            guards.publish(0)
            found["critical"] = bench.finish_asking(asked)
        finally:
            guards.publish(0)
        return found


def _told(events: list[Any]) -> list[tuple[float, float]]:
    return [(began, float(amount)) for began, _, kind, amount in events if kind == "told"]


def _texts(told: Answers) -> set[str]:
    return {one["text"] for one in told if not one["error"]}


def _state(one: dict[str, Any]) -> str:
    return str(one["made_by"].get("thermal_state", one["error"]))


def _compared(name: str, told: Answers, texts: set[str]) -> dict[str, int]:
    """How many answers there are, and how many are not the one that was given alone."""
    others = [one for one in told if one["error"] or {one["text"]} != texts]
    return {f"{name}_answers": len(told), f"{name}_different": len(others)}
