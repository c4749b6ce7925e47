# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NotSupportedError, translate
from gpuwarden.nvml.vocabulary import clock_event_reasons, kernel_pci_address, recovery_action


@pytest.mark.parametrize(
    ("nvml", "kernel"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:00:06.0", "0000:00:06.0"),
        ("00010000:AF:1F.7", "10000:af:1f.7"),
    ],
)
def test_addresses_are_written_as_the_kernel_does(nvml: str, kernel: str) -> None:
    assert kernel_pci_address(nvml) == kernel


@pytest.mark.parametrize("text", ["", "3B:00.0", "0:0:0", "x:y:z.0"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no PCI address"):
        kernel_pci_address(text)


def test_clock_event_bits_have_names() -> None:
    assert clock_event_reasons(0) == ()
    assert clock_event_reasons(0x48) == ("hardware-slowdown", "hardware-thermal-slowdown")
    assert clock_event_reasons(1 << 40) == ("bit-40",)


@pytest.mark.parametrize(
    ("value", "word"), [(0, "none"), (1, "gpu-reset"), (7, "system-reboot"), (None, "unknown")]
)
def test_recovery_actions_have_words(value: int | None, word: str) -> None:
    assert recovery_action(value) == word
    assert recovery_action(99) == "unknown"


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = translate(15, "card GPU-1: nvmlDeviceGetTemperatureV")
    assert isinstance(error, CardLostError)
    assert str(error) == (
        "card GPU-1: nvmlDeviceGetTemperatureV: the card is lost (NVML 15); "
        "reset it or reboot, see journalctl -k for Xid"
    )
    assert isinstance(translate(9, "NVML start"), DriverMissingError)
    assert isinstance(translate(13, "x"), NotSupportedError)
    assert "without saying why" in str(translate(4711, "x"))
