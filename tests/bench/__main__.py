# SPDX-License-Identifier: Apache-2.0
"""All benchmarks: ``python -m tests.bench [--write] [SECTION ...]``.

The data plane's sections print a table each and the goals with whether they are met; nothing fails
for a goal that a busy machine misses. With ``--write`` the tables go into docs/performance.md (and
the thermal table into docs/thermal.md). The section ``thermal`` does fail where a demand isn't
kept: it is computed, not measured.
"""

import argparse
import asyncio
import sys

from tests.bench import thermal
from tests.bench.dataplane.run import document, run
from tests.bench.dataplane.sections import SECTIONS, Scale
from tests.bench.document import DOCUMENTS, write

THERMAL = "thermal"
DOCUMENT = DOCUMENTS / "performance.md"
BEGIN = "<!-- tables: make bench -->"
END = "<!-- end of the tables -->"


def main(words: list[str]) -> int:
    """Run the sections that are named, or all."""
    known = [*SECTIONS, THERMAL]
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--write", action="store_true", help="put the tables into the documents")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(known))
    arguments = parser.parse_args(words)
    wanted = arguments.sections or known
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"no section {', '.join(unknown)}: there is {', '.join(known)}")
    if measured := [name for name in SECTIONS if name in wanted]:
        lines = document(asyncio.run(run(measured, Scale())))
        print("\n".join(lines), flush=True)
        if arguments.write:
            write(DOCUMENT, BEGIN, END, lines)
    return thermal.main(["--write"] * arguments.write) if THERMAL in wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
