# SPDX-License-Identifier: Apache-2.0
import ctypes
import subprocess
import sys
from pathlib import Path

from gpuwarden.plant.cards import Capability
from gpuwarden.simulator import layout
from gpuwarden.simulator.machine import Fault
from tests.integration.simulation import REPOSITORY, SOURCES, Caller

GPU = "gpu:0"


def test_only_the_interface_is_exported(library: Path) -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    names = [line.split()[2] for line in listing.splitlines()]
    assert names
    assert all(name.startswith("nvml") for name in names)


def test_python_and_c_agree_on_the_state(tmp_path: Path) -> None:
    """A program made from the Python description prints what the C compiler makes of the header."""
    lines, wanted = [], []
    for name, structure in layout.STRUCTURES.items():
        lines.append(f'printf("%zu\\n", sizeof(struct {name}));')
        wanted.append(ctypes.sizeof(structure))
        for field in structure._fields_:
            member = f"struct {name}, {field[0]}"
            lines.append(f'printf("%zu\\n", offsetof({member}));')
            lines.append(f'printf("%zu\\n", sizeof(((struct {name} *)0)->{field[0]}));')
            descriptor = getattr(structure, field[0])
            wanted += [descriptor.offset, descriptor.size]
    constants = {
        "SIM_MAGIC": layout.MAGIC,
        "SIM_VERSION": layout.VERSION,
        "SIM_MAX_CARDS": layout.MAX_CARDS,
        "SIM_MAX_PROCESSES": layout.MAX_PROCESSES,
        "SIM_MAX_EVENTS": layout.MAX_EVENTS,
        "SIM_AFFINITY_WORDS": layout.AFFINITY_WORDS,
        **capabilities_and_faults(),
    }
    for name, value in constants.items():
        lines.append(f'printf("%llu\\n", (unsigned long long){name});')
        wanted.append(value)
    source = tmp_path / "layout.c"
    source.write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "state.h"\n'
        "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n",
        encoding="ascii",
    )
    program = tmp_path / "layout"
    subprocess.run(["gcc", "-I", str(SOURCES), "-o", str(program), str(source)], check=True)
    printed = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in printed.split()] == wanted


def capabilities_and_faults() -> dict[str, int]:
    other_names = {"SENSOR_ERROR": "SENSOR"}
    return {f"SIM_CAN_{each.name}": each.value for each in Capability} | {
        f"SIM_FAULT_{other_names.get(str(each.name), each.name)}": each.value for each in Fault
    }


def test_no_reader_ever_sees_half_a_sample(tmp_path: Path, library: Path) -> None:
    """A writer as fast as it can be, fields that belong together, readers in another process."""
    program = (
        "import sys, pathlib, itertools\n"
        "from gpuwarden.simulator.configuration import CardsFile\n"
        "from gpuwarden.simulator.state_file import StateFile\n"
        "cards = CardsFile.model_validate("
        '{"cards": [{"preset": "H200", "pci_address": "0000:41:00.0"}]})\n'
        "file = StateFile(pathlib.Path(sys.argv[1])); file.open(cards.cards)\n"
        "print('ready', flush=True)\n"
        "for number in itertools.count(1):\n"
        "    with file.sampling(0) as sample:\n"
        "        sample.power_average_mw = number % 4000000000\n"
        "        sample.energy_mj = number % 4000000000\n"
        "        sample.memory_temperature_celsius = number % 97\n"
        "        sample.power_instant_mw = number % 4000000000\n"
    )
    state = tmp_path / "state"
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(state)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    caller = Caller(library, state)
    try:
        assert writer.stdout.readline() == "ready\n"
        assert caller("nvmlInit") is None
        seen = caller("hammer", GPU, 200, 30)
    finally:
        writer.kill()
        writer.wait(10)
        writer.stdout.close()
        caller.end()
    assert len(seen) == 200, "the writer stood still"
    for average, instant, energy, memory in seen:
        assert average == instant == energy
        assert memory == energy % 97
