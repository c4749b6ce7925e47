# SPDX-License-Identifier: Apache-2.0
"""All presets, scenarios and both policies: ``python -m tests.bench.thermal [--write]``.

Prints the table and what ``regulated`` doesn't keep; with ``--write`` the table goes into
docs/thermal.md as well. Exit status 1 where a demand isn't kept, or docs/thermal.md has other
figures. About two minutes on two cores.
"""

import sys
from multiprocessing import Pool

from tests.bench.thermal_cases import cases
from tests.bench.thermal_demands import faults
from tests.bench.thermal_table import is_documented, put_into_document, table
from tests.bench.thermal_trial import try_out


def main(words: list[str]) -> int:
    """Run it; ``--write`` is the only option."""
    if words not in ([], ["--write"]):
        print("usage: python -m tests.bench.thermal [--write]", file=sys.stderr)
        return 2
    with Pool() as pool:
        trials = pool.map(try_out, cases(), chunksize=1)
    lines = table(trials)
    print("\n".join(lines))
    if words:
        put_into_document(lines)
    found = [f"{trial.case}: {fault}" for trial in trials for fault in faults(trial)]
    found += [
        f"{trial.case}: docs/thermal.md has other figures"
        for trial in trials
        if not is_documented(trial)
    ]
    print("\n".join(found) or "regulated keeps every demand", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
