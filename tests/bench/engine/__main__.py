# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine [one-card|two-cards|proof] [--tiny] [--minutes 9] ...``.

Builds a model of MedGemma 4B's shape with random weights, runs the naive loop, then gateway and
workers, and prints the table. Results are in ``engine.json`` of the folder from the first minute
on; the workers' logs are beside it. A section that fails, or for which no time is left, says so.
``proof`` runs what is proved rather than measured: see ``proof``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from tests.bench.engine import proof
from tests.bench.engine.bench import Bench, Wanted
from tests.bench.engine.one_card import CACHE_OPTION, OneCard
from tests.bench.engine.sizes import CARD, TINY
from tests.bench.engine.two_cards import TwoCards

MODES = ("one-card", "two-cards", "proof")


def main(words: list[str]) -> int:
    """One run; 0 when all sections have figures."""
    arguments = _parser().parse_args(words)
    if arguments.tiny:
        # Where other processes want the cores too, torch's threads wait for each other at each
        # operation: a token then takes 0.7 s in place of 2 ms.
        os.environ["OMP_NUM_THREADS"] = "1"
    options = {name: json.loads(value) for name, _, value in arguments.set}
    if arguments.kv_cache:
        options[CACHE_OPTION] = arguments.kv_cache
    wanted = Wanted(
        sizes=TINY if arguments.tiny else CARD,
        minutes=arguments.minutes,
        out=arguments.out,
        model=arguments.model,
        cache=arguments.cache,
        options=options,
    )
    if arguments.mode == "proof":
        return proof.run(wanted)
    bench = Bench(wanted)
    try:
        bench.begin()
        mode = OneCard(bench) if arguments.mode == "one-card" else TwoCards(bench)
        for name, section, seconds in mode.sections:
            if not arguments.sections or name in arguments.sections:
                bench.section(name, section, seconds)
    finally:
        bench.finish()
    return int(any("error" in part for part in bench.results.values() if isinstance(part, dict)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine")
    parser.add_argument("mode", nargs="?", choices=MODES, default="one-card")
    parser.add_argument("--tiny", action="store_true", help="try the program on the CPU")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--model", type=Path, help="a folder to find the model in, or to save it")
    parser.add_argument("--cache", type=Path, help="a folder for compiled code that stays")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "build/engine-bench"))
    )
    parser.add_argument("--sections", nargs="*", help="these alone")
    parser.add_argument("--kv-cache", help="the type of the KV cache, as int8")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=lambda text: text.partition("="),
        metavar="OPTION=JSON",
        help="an option of the engine",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
