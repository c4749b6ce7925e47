"""The kernel's CPU lists: ``0-3,8,10-11`` to a set and back. Pure."""

from collections.abc import Iterable


class CpuListError(ValueError):
    """A text that is no CPU list; it says which part, and what would be one."""


def parse_cpu_list(text: str) -> frozenset[int]:
    """The CPUs that ``text`` names; none for an empty text.

    :raises CpuListError: a part is no number and no ascending range.
    """
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if part.strip():
            cpus.update(_parse_part(part.strip(), text))
    return frozenset(cpus)


def _parse_part(part: str, text: str) -> range:
    first, dash, last = part.partition("-")
    numbers = (first, last) if dash else (first, first)
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise CpuListError(
            f"{part!r} in CPU list {text!r} is no CPU and no range; expected something like 0-3,8"
        )
    low, high = int(numbers[0]), int(numbers[1])
    if low > high:
        raise CpuListError(f"range {part!r} in CPU list {text!r} runs backwards; {high}-{low}?")
    return range(low, high + 1)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The shortest list of ``cpus``, ascending, in the kernel's form."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)
