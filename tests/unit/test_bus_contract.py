# SPDX-License-Identifier: Apache-2.0
# The bus as the design fixes it: every member with its type, who may change something, and what a
# caller's words can reach. Held against the tables that all else is made from.

import re
from pathlib import Path

from gpuwarden import names
from gpuwarden.bus.interface import Emits, Interface, Method
from gpuwarden.bus.objects.log_control import LOG_CONTROL
from gpuwarden.bus.objects.publisher import INTERFACES
from gpuwarden.bus.objects.reference import DOCUMENT, rights, written_into
from gpuwarden.bus.standard import INTROSPECTABLE, OBJECT_MANAGER, PEER, PROPERTIES

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
STANDARD = (PEER, INTROSPECTABLE, PROPERTIES, OBJECT_MANAGER)
EVERYTHING = (*INTERFACES, LOG_CONTROL, *STANDARD)

METHODS = {
    "Manager": {
        "ListWorkers": ("", "a(uossu)"),
        "ListGpus": ("", "a(uosss)"),
        "StartWorker": ("u", ""),
        "StopWorker": ("u", ""),
        "RestartWorker": ("u", ""),
        "DrainWorker": ("u", ""),
        "RollingRestart": ("", ""),
        "ListOrphans": ("", "a(uusst)"),
        "ReapOrphan": ("u", "t"),
        "Reload": ("", ""),
        "GetStatus": ("", "s"),
    },
    "Worker": dict.fromkeys(("Start", "Stop", "Restart", "Drain"), ("", "")),
    "Gpu": {},
    "Thermal": {
        "Override": ("su", ""),
        "ClearOverride": ("", ""),
        "GetHistory": ("u", "a(tddus)"),
        "Release": ("u", ""),
    },
    "Gateway": {"Pause": ("u", ""), "Resume": ("", "")},
}
PROPERTY_TYPES = {
    "Manager": {
        **dict.fromkeys(("Version", "State", "Profile"), "s"),
        "Simulated": "b",
        **dict.fromkeys(("WorkersReady", "WorkersTotal"), "u"),
    },
    "Worker": {
        **dict.fromkeys(("Number", "MainPid", "Gpu", "ProcessCount"), "u"),
        **dict.fromkeys(("Requests", "Failures", "Restarts"), "u"),
        **dict.fromkeys(("Unit", "State", "GpuUuid", "Cpus", "LastError"), "s"),
        "NumaNode": "i",
        **dict.fromkeys(("VramReservedBytes", "VramAllocatedBytes", "Since"), "t"),
        "VramFragmentation": "d",
    },
    "Gpu": {
        "Index": "u",
        **dict.fromkeys(("Uuid", "Name", "PciAddress", "RecoveryAction"), "s"),
        "NumaNode": "i",
        **dict.fromkeys(("TemperatureCelsius", "MemoryTemperatureCelsius"), "d"),
        **dict.fromkeys(("PowerWatts", "PowerLimitWatts", "Utilization"), "d"),
        **dict.fromkeys(("VramUsedBytes", "VramTotalBytes"), "t"),
        "ClockEventReasons": "as",
    },
    "Thermal": {
        **dict.fromkeys(("State", "Reason"), "s"),
        **dict.fromkeys(("AlertCelsius", "CriticalCelsius", "SafeCelsius"), "d"),
        **dict.fromkeys(("OriginalPowerLimitWatts", "DispatchDuty"), "d"),
        **dict.fromkeys(("BatchLimit", "Throttles", "Recoveries"), "u"),
        "Since": "t",
        "Actuators": "a{ss}",
    },
    "Gateway": {
        **dict.fromkeys(("QueueDepth", "QueueLimit", "WorkersActive", "Accepted"), "u"),
        **dict.fromkeys(("Completed", "Failed", "Rejected", "Retried"), "u"),
        **dict.fromkeys(("MeanResponseSeconds", "P95ResponseSeconds"), "d"),
        "BatchLimits": "a{uu}",
    },
}
SIGNALS = {
    "Manager": {"WorkerStateChanged": "usss", "OrphanFound": "uus", "OrphanReaped": "ut"},
    "Worker": {},
    "Gpu": {},
    "Thermal": {"StateChanged": "ssds"},
    "Gateway": {},
}
# Ours and the standard's: everything a caller may say in words, and where it ends.
TEXTS = {
    "Thermal.Override state": "one of two words, else refused",
    "Properties.Get interface_name": "looked up among what is exported",
    "Properties.Get property_name": "looked up among what is exported",
    "Properties.GetAll interface_name": "looked up among what is exported",
    "Properties.Set interface_name": "looked up among what is exported",
    "Properties.Set property_name": "looked up among what is exported",
    "Properties.Set value": "of the property's type: one of eight words, or of one",
}
# Answers from what the guard has to ask somebody else for.
READERS = {"Thermal.GetHistory"}


def short(interface: Interface[object]) -> str:
    return interface.name.rpartition(".")[2]


def acting() -> dict[str, Method[object]]:
    """Every method that does anything but tell, by its short name."""
    return {
        f"{short(interface)}.{method.name}": method
        for interface in INTERFACES
        for method in interface.methods
        if method.answer is None and f"{short(interface)}.{method.name}" not in READERS
    }


def test_every_member_of_the_contract_is_there_with_its_type_and_no_other() -> None:
    assert {each.name for each in INTERFACES} == {f"{names.BUS_NAME}.{each}" for each in METHODS}
    for interface in INTERFACES:
        name = short(interface)
        methods = {m.name: (m.input_signature, m.output_signature) for m in interface.methods}
        assert methods == METHODS[name]
        assert {p.name: p.signature for p in interface.properties} == PROPERTY_TYPES[name]
        assert {s.name: s.signature for s in interface.signals} == SIGNALS[name]


def test_the_log_is_controlled_as_systemd_does_it() -> None:
    shape = {each.name: (each.signature, each.action) for each in LOG_CONTROL.properties}
    assert shape == {
        "LogLevel": ("s", names.RELOAD_ACTION),
        "LogTarget": ("s", names.RELOAD_ACTION),
        "SyslogIdentifier": ("s", None),
    }
    assert (LOG_CONTROL.name, LOG_CONTROL.methods) == ("org.freedesktop.LogControl1", ())


def test_all_properties_of_ours_are_read_only() -> None:
    assert [p.name for each in INTERFACES for p in each.properties if p.action is not None] == []


def test_what_changes_all_the_time_is_not_told() -> None:
    volatile = {"Gpu": {"TemperatureCelsius", "PowerWatts", "Utilization", "VramUsedBytes"}}
    volatile |= {"Gateway": {"Accepted", "Completed", "QueueDepth"}, "Worker": {"Requests"}}
    for interface in INTERFACES:
        silent = {p.name for p in interface.properties if p.emits is Emits.FALSE}
        assert volatile.get(short(interface), set()) <= silent


def test_whatever_changes_something_asks_for_an_action() -> None:
    actions = {name: method.action for name, method in acting().items()}
    workers = dict.fromkeys(
        [
            *(f"Manager.{each}Worker" for each in ("Start", "Stop", "Restart", "Drain")),
            *(f"Worker.{each}" for each in ("Start", "Stop", "Restart", "Drain")),
            "Manager.RollingRestart",
        ],
        names.MANAGE_WORKERS_ACTION,
    )
    assert actions == workers | {
        "Manager.ReapOrphan": names.REAP_ACTION,
        "Manager.Reload": names.RELOAD_ACTION,
        "Gateway.Pause": names.MANAGE_GATEWAY_ACTION,
        "Gateway.Resume": names.MANAGE_GATEWAY_ACTION,
        **dict.fromkeys(
            ("Thermal.Override", "Thermal.ClearOverride", "Thermal.Release"),
            names.THERMAL_OVERRIDE_ACTION,
        ),
    }


def test_polkit_is_told_exactly_the_actions_in_use_and_each_needs_an_administrator() -> None:
    text = (PACKAGING / "polkit/org.gpuwarden1.policy").read_text()
    used = {method.action for method in acting().values()}
    used |= {each.action for each in LOG_CONTROL.properties if each.action}
    assert set(re.findall(r'<action id="([^"]+)">', text)) == used
    defaults = re.findall(r"<allow_(?:any|inactive|active)>(\w+)<", text)
    assert defaults == ["auth_admin"] * (3 * len(used))


def test_a_callers_words_are_few_and_it_is_known_where_they_end() -> None:
    texts = {
        f"{short(interface)}.{method.name} {argument.name}"
        for interface in EVERYTHING
        for method in interface.methods
        for argument in method.inputs
        if set(argument.signature) & set("sogv")
    }
    assert texts == TEXTS.keys()


def test_the_group_is_let_in_to_every_interface_of_ours_by_name() -> None:
    text = (PACKAGING / "dbus/org.gpuwarden1.conf").read_text()
    let_in = set(re.findall(r'send_interface="([^"]+)"', text))
    # The log's properties are reached through Properties; it has no method of its own.
    assert let_in == {each.name for each in (*INTERFACES, *STANDARD)}


def test_the_documentation_is_what_the_tables_say() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert text == written_into(text), "run: python -m gpuwarden.bus.objects.reference"


def test_the_matrix_has_a_row_for_every_method_and_no_text_breaks_its_tables() -> None:
    rows = {(right.interface, right.what) for right in rights()}
    for interface in (*INTERFACES, LOG_CONTROL, PEER, INTROSPECTABLE, OBJECT_MANAGER):
        assert {(interface.name, f"{m.name}()") for m in interface.methods} <= rows
        members = (*interface.methods, *interface.properties, *interface.signals)
        docs = [member.doc for member in members]  # type: ignore[attr-defined]  # all have one
        assert not set("|\n") & set("".join(docs))
