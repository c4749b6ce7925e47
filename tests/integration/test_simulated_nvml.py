# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.simulation import (
    Caller,
    Node,
    error,
    running_node,
    uuid_of,
)
from tests.waiting import wait_until

SURVEY = Path(__file__).parent / "data" / "h200_survey.json"
GPU, T4, A4000 = "gpu:0", "gpu:1", "gpu:2"
TEMPERATURE_V1, MEMORY_V2, POWER_VALUE_V2 = 0x100000C, 0x2000028, 0x200000C
ARGUMENT_VERSION_MISMATCH, INVALID_ARGUMENT, NOT_SUPPORTED = 25, 2, 3
WITHOUT_ADMINISTRATION = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node") / "node"
    with running_node(directory, library, "H200", "T4", "A4000") as running:
        yield running


@pytest.fixture(scope="module")
def nvml(node: Node) -> Caller:
    return node.caller()


@pytest.fixture
def mended(node: Node) -> Iterator[Node]:
    yield node
    node.do("clear")
    node.do("reload-driver")


# What the survey of a real H200 asked, in its own names; each answer is compared as it stands.
SURVEYED_AS_IT_STANDS = {
    "driver": ("nvmlSystemGetDriverVersion",),
    "nvml": ("nvmlSystemGetNVMLVersion",),
    "name": ("nvmlDeviceGetName", GPU),
    "serial": ("nvmlDeviceGetSerial", GPU),
    "persistence": ("nvmlDeviceGetPersistenceMode", GPU),
    "fan": ("nvmlDeviceGetFanSpeed", GPU),
    "perf_state": ("nvmlDeviceGetPerformanceState", GPU),
    "power_limit_mW": ("nvmlDeviceGetPowerManagementLimit", GPU),
    "power_default_mW": ("nvmlDeviceGetPowerManagementDefaultLimit", GPU),
    "power_constraints_mW": ("nvmlDeviceGetPowerManagementLimitConstraints", GPU),
    "enforced_limit_mW": ("nvmlDeviceGetEnforcedPowerLimit", GPU),
    "clock_reasons": ("nvmlDeviceGetCurrentClocksEventReasons", GPU),
    "clock_reasons_supported": ("nvmlDeviceGetSupportedClocksEventReasons", GPU),
    "throttle_reasons_old": ("nvmlDeviceGetCurrentClocksThrottleReasons", GPU),
    "util": ("nvmlDeviceGetUtilizationRates", GPU),
    "memory": ("nvmlDeviceGetMemoryInfo", GPU),
    "mig": ("nvmlDeviceGetMigMode", GPU),
    "compute_mode": ("nvmlDeviceGetComputeMode", GPU),
    "procs": ("nvmlDeviceGetComputeRunningProcesses", GPU),
    "gprocs": ("nvmlDeviceGetGraphicsRunningProcesses", GPU),
    "numa": ("nvmlDeviceGetNumaNodeId", GPU),
    "event_types": ("nvmlDeviceGetSupportedEventTypes", GPU),
    "ecc": ("nvmlDeviceGetEccMode", GPU),
    "remapped": ("nvmlDeviceGetRemappedRows", GPU),
    "arch": ("nvmlDeviceGetArchitecture", GPU),
    "virt": ("nvmlDeviceGetVirtualizationMode", GPU),
    "mem_clocks": ("nvmlDeviceGetSupportedMemoryClocks", GPU),
    "retired_pending": ("nvmlDeviceGetRetiredPagesPendingStatus", GPU),
    "gsp": ("nvmlDeviceGetGspFirmwareMode", GPU),
    **{
        f"thr_{name}": ("nvmlDeviceGetTemperatureThreshold", GPU, number)
        for number, name in enumerate(
            (
                *("SHUTDOWN", "SLOWDOWN", "MEM_MAX", "GPU_MAX"),
                *("ACOUSTIC_MIN", "ACOUSTIC_CURR", "ACOUSTIC_MAX", "GPS_CURR"),
            )
        )
    },
    **{
        f"{prefix}_{clock}": (function, GPU, number)
        for prefix, function in (
            ("clock", "nvmlDeviceGetClockInfo"),
            ("maxclock", "nvmlDeviceGetMaxClockInfo"),
        )
        for clock, number in (("graphics", 0), ("sm", 1), ("mem", 2))
    },
    "mem_aff_scope0": ("nvmlDeviceGetMemoryAffinity", GPU, 4, 0),
    "mem_aff_scope1": ("nvmlDeviceGetMemoryAffinity", GPU, 4, 1),
    "proc_util": ("nvmlDeviceGetProcessUtilization", GPU, 0),
}
# Values of that moment: within so much of the survey's.
SURVEYED_NEARLY = {
    "power_usage_mW": (("nvmlDeviceGetPowerUsage", GPU), 10_000),
    "temp": (("nvmlDeviceGetTemperature", GPU, 0), 5),
    "tempV": (("nvmlDeviceGetTemperatureV", GPU, 0), 5),
    "margin_temp": (("nvmlDeviceGetMarginTemperature", GPU), 5),
}
SURVEYED_FIELDS = {
    "field_TEMPERATURE_SHUTDOWN_TLIMIT": 193,
    "field_TEMPERATURE_SLOWDOWN_TLIMIT": 194,
    "field_TEMPERATURE_MEM_MAX_TLIMIT": 195,
    "field_TEMPERATURE_GPU_MAX_TLIMIT": 196,
    "field_POWER_CURRENT_LIMIT": 190,
    "field_POWER_MIN_LIMIT": 187,
    "field_POWER_MAX_LIMIT": 188,
    "field_POWER_DEFAULT_LIMIT": 189,
}
SURVEYED_FIELDS_NEARLY = {
    "field_MEMORY_TEMP": (82, 8),
    "field_POWER_INSTANT": (186, 10_000),
    "field_POWER_AVERAGE": (185, 10_000),
}
# Compared by form: identities given by configuration, counters, the machine's own CPUs.
SURVEYED_BY_FORM = {
    "count": ("nvmlDeviceGetCount",),
    "uuid": ("nvmlDeviceGetUUID", GPU),
    "pci": ("nvmlDeviceGetPciInfo", GPU),
    "energy_mJ": ("nvmlDeviceGetTotalEnergyConsumption", GPU),
    "violation_power": ("nvmlDeviceGetViolationStatus", GPU, 0),
    "violation_thermal": ("nvmlDeviceGetViolationStatus", GPU, 1),
    "violation_low_util": ("nvmlDeviceGetViolationStatus", GPU, 4),
    "violation_reliability": ("nvmlDeviceGetViolationStatus", GPU, 5),
    "cpu_affinity": ("nvmlDeviceGetCpuAffinity", GPU, 4),
    "cpu_aff_scope0": ("nvmlDeviceGetCpuAffinityWithinScope", GPU, 4, 0),
    "cpu_aff_scope1": ("nvmlDeviceGetCpuAffinityWithinScope", GPU, 4, 1),
}
NOT_A_CALL = {"guard_sample(temp+power+util+reasons)"}


def survey() -> dict[str, Any]:
    answers = json.loads(SURVEY.read_text(encoding="utf-8"))["answers"]
    return {name: answer["result"] for name, answer in answers.items()}


def expected(name: str) -> Any:
    result = survey()[name]
    if isinstance(result, str) and result.startswith("NVMLError_"):
        return error(result.removeprefix("NVMLError_").partition(":")[0])
    return result


def form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: form(each) for name, each in value.items()}
    if isinstance(value, list):
        return [form(each) for each in value]
    return len(value) if isinstance(value, str) else type(value).__name__


def test_every_surveyed_call_is_compared() -> None:
    compared = (
        SURVEYED_AS_IT_STANDS.keys()
        | SURVEYED_NEARLY.keys()
        | SURVEYED_FIELDS.keys()
        | SURVEYED_FIELDS_NEARLY.keys()
        | SURVEYED_BY_FORM.keys()
        | NOT_A_CALL
    )
    assert survey().keys() == compared


@pytest.mark.parametrize("name", SURVEYED_AS_IT_STANDS)
def test_answer_is_that_of_a_real_h200(nvml: Caller, name: str) -> None:
    assert nvml(*SURVEYED_AS_IT_STANDS[name]) == expected(name)


@pytest.mark.parametrize("name", SURVEYED_NEARLY)
def test_reading_is_near_that_of_a_real_h200(nvml: Caller, name: str) -> None:
    request, tolerance = SURVEYED_NEARLY[name]
    assert nvml(*request) == pytest.approx(expected(name), abs=tolerance)


@pytest.mark.parametrize("name", SURVEYED_FIELDS)
def test_field_is_that_of_a_real_h200(nvml: Caller, name: str) -> None:
    (field,) = nvml("fields", GPU, SURVEYED_FIELDS[name])
    assert field["return"] == 0
    real = expected(name)
    if isinstance(real, list):
        assert [field["type"], field["unsigned"], field["signed"], field["long"]] == real
    else:
        assert field["unsigned"] == real


@pytest.mark.parametrize("name", SURVEYED_FIELDS_NEARLY)
def test_field_is_near_that_of_a_real_h200(nvml: Caller, name: str) -> None:
    number, tolerance = SURVEYED_FIELDS_NEARLY[name]
    (field,) = nvml("fields", GPU, number)
    assert (field["return"], field["type"]) == (0, 1)
    assert field["unsigned"] == pytest.approx(expected(name), abs=tolerance)


@pytest.mark.parametrize("name", SURVEYED_BY_FORM)
def test_answer_has_the_form_of_a_real_h200s(nvml: Caller, name: str) -> None:
    assert form(nvml(*SURVEYED_BY_FORM[name])) == form(expected(name))


def test_pci_address_is_the_configured_one_in_nvmls_spelling(nvml: Caller) -> None:
    info = nvml("nvmlDeviceGetPciInfo", T4)
    assert (info["busId"], info["busIdLegacy"]) == ("00000000:42:00.0", "0000:42:00.0")
    assert (info["domain"], info["bus"], info["device"]) == (0, 0x42, 0)


def test_a_card_is_found_by_uuid_and_pci_address_alike(nvml: Caller) -> None:
    uuid = nvml("nvmlDeviceGetUUID", T4)
    assert nvml("nvmlDeviceGetName", f"uuid:{uuid}") == "Tesla T4"
    assert "error" not in nvml("nvmlDeviceGetHandleByPciBusId", "0000:42:00.0")
    assert nvml("nvmlDeviceGetHandleByPciBusId", "0000:99:00.0") == error("NotFound")
    assert nvml("nvmlDeviceGetHandleByUUID", "GPU-none") == error("NotFound")
    assert nvml("nvmlDeviceGetHandleByIndex", 3) == error("InvalidArgument")
    assert nvml("nvmlDeviceGetMinorNumber", T4) == 1


def test_an_older_card_lacks_what_it_lacks(nvml: Caller) -> None:
    for request in (
        ("nvmlDeviceGetMarginTemperature", T4),
        ("nvmlDeviceGetTemperatureThreshold", T4, 2),
        ("nvmlDeviceGetRemappedRows", T4),
        ("nvmlDeviceGetMigMode", T4),
        ("nvmlDeviceSetMemoryLockedClocks", T4, 405, 5001),
    ):
        assert nvml(*request) == error("NotSupported"), request
    returns = [field["return"] for field in nvml("fields", T4, 82, 185, 186, 193, 7777)]
    assert returns == [NOT_SUPPORTED, NOT_SUPPORTED, 0, NOT_SUPPORTED, NOT_SUPPORTED]
    assert nvml("nvmlDeviceGetRetiredPagesPendingStatus", T4) == 0


def test_a_workstation_card_has_fan_and_acoustic_target(nvml: Caller) -> None:
    assert 30 <= nvml("nvmlDeviceGetFanSpeed", A4000) <= 100
    assert nvml("nvmlDeviceGetTemperatureThreshold", A4000, 5) == 84


def test_clocks_are_listed_from_the_highest(nvml: Caller) -> None:
    clocks = nvml("nvmlDeviceGetSupportedGraphicsClocks", GPU, 3201)
    assert clocks[0] == 1980
    assert clocks == sorted(clocks, reverse=True)
    assert nvml("nvmlDeviceGetSupportedGraphicsClocks", GPU, 1234) == error("NotFound")


def test_structures_of_another_version_are_refused(nvml: Caller) -> None:
    assert nvml("temperature_with_version", GPU, TEMPERATURE_V1) == 0
    assert nvml("memory_with_version", GPU, MEMORY_V2) == 0
    for request in (
        ("temperature_with_version", GPU, TEMPERATURE_V1 + 1),
        ("memory_with_version", GPU, 0),
        ("limit_with_version", GPU, POWER_VALUE_V2 + (1 << 24), 0, 500_000),
    ):
        assert nvml(*request) == ARGUMENT_VERSION_MISMATCH, request
    assert nvml("limit_with_version", GPU, POWER_VALUE_V2, 1, 500_000) == NOT_SUPPORTED
    assert nvml("limit_with_version", GPU, POWER_VALUE_V2, 0, 5) == INVALID_ARGUMENT


def test_memory_v2_tells_the_drivers_own_part_apart(nvml: Caller) -> None:
    memory = nvml("nvmlDeviceGetMemoryInfo", GPU, MEMORY_V2)
    assert memory["used"] == 0
    assert memory["reserved"] == 644939776
    assert memory["total"] == memory["free"] + memory["reserved"] + memory["used"]


def test_nothing_answers_before_init_and_after_the_last_shutdown(node: Node) -> None:
    caller = node.caller(initialised=False)
    assert caller("nvmlDeviceGetCount") == error("Uninitialized")
    assert caller("nvmlShutdown") == error("Uninitialized")
    caller("nvmlInit")
    caller("nvmlInitWithFlags", 2)
    assert caller("nvmlShutdown") is None
    assert caller("nvmlDeviceGetCount") == 3
    assert caller("nvmlShutdown") is None
    assert caller("nvmlDeviceGetCount") == error("Uninitialized")


def test_started_without_attaching_it_finds_no_card_as_an_h200s_driver_does(node: Node) -> None:
    caller = node.caller(initialised=False)
    caller("nvmlInitWithFlags", 2)
    assert caller("nvmlDeviceGetCount") == 0
    assert caller("nvmlDeviceGetHandleByIndex", 0) == error("InvalidArgument")
    assert caller("nvmlDeviceGetHandleByUUID", uuid_of(node, 0)) == error("NotFound")
    caller("nvmlShutdown")
    caller("nvmlInitWithFlags", 1)
    assert caller("nvmlDeviceGetCount") == 3


def test_without_a_simulator_the_driver_is_not_loaded(library: Path, tmp_path: Path) -> None:
    caller = Caller(library, tmp_path / "none")
    try:
        assert caller("nvmlInit") == error("DriverNotLoaded")
        (tmp_path / "none").write_bytes(b"x" * 100_000)
        assert caller("nvmlInit") == error("LibRmVersionMismatch")
    finally:
        caller.end()


@pytest.mark.parametrize("function", ["nvmlDeviceSetPowerManagementLimit", "limit_with_version"])
def test_power_limit_is_set_within_its_range_and_read_back(
    mended: Node, nvml: Caller, function: str
) -> None:
    extra = (POWER_VALUE_V2, 0) if function == "limit_with_version" else ()
    accepted = 0 if extra else None
    refused = INVALID_ARGUMENT if extra else error("InvalidArgument")
    nvml("forget")
    for watts in (200, 450, 700):
        assert nvml(function, GPU, *extra, watts * 1000) == accepted
        assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == watts * 1000
        assert nvml("nvmlDeviceGetEnforcedPowerLimit", GPU) == watts * 1000
        assert [field["unsigned"] for field in nvml("fields", GPU, 190, 192)] == [watts * 1000] * 2
    for milliwatts in (199_999, 700_001, 0):
        assert nvml(function, GPU, *extra, milliwatts) == refused
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 700_000


def test_a_lower_limit_and_clock_lock_reach_the_physics(mended: Node, nvml: Caller) -> None:
    nvml("forget")
    mended.do("load", "--gpu", "0", "--fraction", "1")
    nvml("nvmlDeviceSetPowerManagementLimit", GPU, 300_000)
    wait_until(
        lambda: 250_000 < nvml("nvmlDeviceGetPowerUsage", GPU) <= 301_000,
    )
    assert nvml("nvmlDeviceGetCurrentClocksEventReasons", GPU) == 4
    nvml("nvmlDeviceSetGpuLockedClocks", GPU, 345, 600)
    wait_until(lambda: nvml("nvmlDeviceGetClockInfo", GPU, 1) == 600)
    nvml("nvmlDeviceResetGpuLockedClocks", GPU)
    wait_until(lambda: nvml("nvmlDeviceGetClockInfo", GPU, 1) > 600)
    (power, software) = nvml("fields", GPU, 74, 269)
    assert power["type"] == 3
    assert power["long"] > 0
    assert software["long"] == 0


def test_clock_locks_are_checked(mended: Node, nvml: Caller) -> None:
    nvml("forget")
    for least, most in ((1000, 900), (0, 900), (345, 5000)):
        assert nvml("nvmlDeviceSetGpuLockedClocks", GPU, least, most) == error("InvalidArgument")
    for least, most in ((3201, 2201), (2201, 3000)):
        assert nvml("nvmlDeviceSetMemoryLockedClocks", GPU, least, most) == error("InvalidArgument")
    assert nvml("nvmlDeviceSetMemoryLockedClocks", GPU, 2201, 2201) is None
    assert mended.do("show")[0]["memory_lock_mhz"] == [2201, 2201]
    assert nvml("nvmlDeviceResetMemoryLockedClocks", GPU) is None
    assert mended.do("show")[0]["memory_lock_mhz"] is None


SETTERS: list[tuple[Any, ...]] = [
    ("nvmlDeviceSetPowerManagementLimit", GPU, 500_000),
    ("nvmlDeviceSetGpuLockedClocks", GPU, 345, 900),
    ("nvmlDeviceResetGpuLockedClocks", GPU),
    ("nvmlDeviceSetMemoryLockedClocks", GPU, 2201, 3201),
    ("nvmlDeviceResetMemoryLockedClocks", GPU),
    ("nvmlDeviceSetPersistenceMode", GPU, 1),
]


def test_setters_need_the_administrators_capability_readers_dont(mended: Node) -> None:
    caller = mended.caller(prefix=WITHOUT_ADMINISTRATION)
    assert caller("nvmlDeviceGetPowerManagementLimit", GPU) == 700_000
    for request in SETTERS:
        assert caller(*request) == error("NoPermission"), request
    assert mended.do("show")[0]["power_limit_watts"] == 700


def test_a_process_of_another_user_reads_and_may_not_set(mended: Node) -> None:
    reader = (
        "import ctypes, sys; library = ctypes.CDLL(sys.argv[1]); library.nvmlInit_v2();"
        "device = ctypes.c_void_p();"
        "library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device));"
        "celsius = ctypes.c_uint();"
        "read = library.nvmlDeviceGetTemperature(device, 0, ctypes.byref(celsius));"
        "write = library.nvmlDeviceSetPowerManagementLimit(device, 500000);"
        "print(read, celsius.value > 0, write)"
    )
    # Through descriptors: the folders of a test run may be closed to other users.
    with mended.library.open("rb") as library, mended.state.open("rb") as state:
        done = subprocess.run(
            [
                *("setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c"),
                *(reader, f"/proc/self/fd/{library.fileno()}"),
            ],
            pass_fds=(library.fileno(), state.fileno()),
            env={"GPUWARDEN_SIM_STATE": f"/proc/self/fd/{state.fileno()}"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stdout.split() == ["0", "True", "4"], done.stderr
