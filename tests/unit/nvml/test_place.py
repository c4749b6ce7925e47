# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pynvml
import pytest

from gpuwarden.nvml.place import bits_of, mig_instances, near_cpus
from tests.unit.nvml.driver import NOT_SUPPORTED, Fails, StandInDriver, attach

WITHIN_SCOPE = "nvmlDeviceGetCpuAffinityWithinScope"
ALONE = "nvmlDeviceGetCpuAffinity"
NOT_FOUND = 6


def mask(*words: int) -> Any:
    """A driver's call that fills in these words."""

    def fill(handle: object, count: Any, output: Any, scope: object = None) -> None:
        for place, word in enumerate(words):
            output._obj[place] = word

    return fill


def asked(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> tuple[str, tuple[str, ...]]:
    attach(StandInDriver(answers, {}), monkeypatch)
    handle = pynvml.c_nvmlDevice_t()
    return near_cpus("card 0", handle), mig_instances("card 0", handle)


def test_the_cpus_near_a_card_are_the_bits_of_the_drivers_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked(monkeypatch, **{WITHIN_SCOPE: mask(0xFF00, 1)})[0] == "8-15,64"


def test_an_older_driver_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, **{ALONE: mask(0xF)})[0] == "0-3"


def test_a_driver_that_does_not_say_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {WITHIN_SCOPE: Fails(NOT_SUPPORTED), ALONE: Fails(NOT_SUPPORTED)}
    assert asked(monkeypatch, **silent) == ("", ())


def test_a_divided_card_names_its_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven slots, instances in the first and the third."""

    def instance(handle: object, index: Any, output: object) -> Fails | None:
        return None if int(getattr(index, "value", index)) in (0, 2) else Fails(NOT_FOUND)

    found = asked(
        monkeypatch,
        nvmlDeviceGetMigMode=(1, 1),
        nvmlDeviceGetMaxMigDeviceCount=7,
        nvmlDeviceGetMigDeviceHandleByIndex=instance,
        nvmlDeviceGetUUID="MIG-a",
    )
    assert found == ("", ("MIG-a", "MIG-a"))


def test_a_card_that_could_be_divided_and_is_not_has_no_instances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What an H100 answered, driver 580.159.
    assert asked(monkeypatch, nvmlDeviceGetMigMode=(0, 0))[1] == ()


def test_bits_are_counted_from_the_lowest_word() -> None:
    assert bits_of([0, 0b101]) == {64, 66}
    assert bits_of([]) == frozenset()
