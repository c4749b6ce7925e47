# SPDX-License-Identifier: Apache-2.0
"""The state shared with the simulated NVML: state.h, field by field.

The daemon is the only writer of samples; setters in other processes write single words of
``control``. x86-64 keeps the order of stores, which the seqlock below relies on.
"""

import ctypes
from ctypes import c_char, c_int32, c_uint32, c_uint64

MAGIC = 0x4D49535750475557
VERSION = 3
MAX_CARDS = 8
MAX_PROCESSES = 64
MAX_EVENTS = 64
MAX_MEMORY_CLOCKS = 8
AFFINITY_WORDS = 8


class Identity(ctypes.Structure):
    """What a card is; written once, before the file appears."""

    _fields_ = (
        ("name", c_char * 96),
        ("uuid", c_char * 48),
        ("serial", c_char * 32),
        ("pci_bus_id", c_char * 32),
        ("pci_domain", c_uint32),
        ("pci_bus", c_uint32),
        ("pci_device", c_uint32),
        ("pci_device_id", c_uint32),
        ("pci_subsystem_id", c_uint32),
        ("minor", c_uint32),
        ("architecture", c_uint32),
        ("compute_major", c_uint32),
        ("compute_minor", c_uint32),
        ("capabilities", c_uint32),
        ("memory_total_bytes", c_uint64),
        ("memory_reserved_bytes", c_uint64),
        ("event_types", c_uint64),
        ("limit_minimum_mw", c_uint32),
        ("limit_default_mw", c_uint32),
        ("limit_maximum_mw", c_uint32),
        ("shutdown_celsius", c_int32),
        ("slowdown_celsius", c_int32),
        ("maximum_operating_celsius", c_int32),
        ("memory_maximum_celsius", c_int32),
        ("acoustic_minimum_celsius", c_int32),
        ("acoustic_current_celsius", c_int32),
        ("acoustic_maximum_celsius", c_int32),
        ("sm_minimum_mhz", c_uint32),
        ("sm_maximum_mhz", c_uint32),
        ("sm_step_mhz", c_uint32),
        ("video_maximum_mhz", c_uint32),
        ("memory_clock_count", c_uint32),
        ("memory_clocks_mhz", c_uint32 * MAX_MEMORY_CLOCKS),
        ("near_cpus", c_uint64 * AFFINITY_WORDS),
    )


class Control(ctypes.Structure):
    """What was asked of the driver, and what is broken: each word stands alone."""

    _fields_ = (
        ("sm_lock", c_uint64),
        ("memory_lock", c_uint64),
        ("requested_limit_mw", c_uint32),
        ("faults", c_uint32),
        ("attachment", c_uint32),
        ("persistence", c_uint32),
    )


class Process(ctypes.Structure):
    """One process with a context on the card."""

    _fields_ = (
        ("pid", c_uint32),
        ("sm_utilization", c_uint32),
        ("memory_bytes", c_uint64),
        ("seen_unix_us", c_uint64),
        ("kinds", c_uint32),
        ("padding", c_uint32),
    )


class Sample(ctypes.Structure):
    """What the card's sensors say at one moment."""

    _fields_ = (
        ("unix_us", c_uint64),
        ("reasons", c_uint64),
        ("energy_mj", c_uint64),
        ("memory_used_bytes", c_uint64),
        ("violation_power_ns", c_uint64),
        ("violation_software_thermal_ns", c_uint64),
        ("violation_hardware_thermal_ns", c_uint64),
        ("temperature_celsius", c_int32),
        ("memory_temperature_celsius", c_int32),
        ("power_average_mw", c_uint32),
        ("power_instant_mw", c_uint32),
        ("sm_mhz", c_uint32),
        ("memory_mhz", c_uint32),
        ("video_mhz", c_uint32),
        ("performance_state", c_uint32),
        ("utilization", c_uint32),
        ("memory_utilization", c_uint32),
        ("fan_percent", c_uint32),
        ("recovery_action", c_uint32),
        ("process_count", c_uint32),
        ("check", c_uint32),
        ("processes", Process * MAX_PROCESSES),
    )


class Card(ctypes.Structure):
    """One card's part of the file."""

    _fields_ = (
        ("identity", Identity),
        ("control", Control),
        ("sequence", c_uint64),
        ("sample", Sample),
    )


class Event(ctypes.Structure):
    """One XID or other event, as nvmlEventSetWait hands it out."""

    _fields_ = (("card", c_uint64), ("type", c_uint64), ("data", c_uint64))


class State(ctypes.Structure):
    """The whole file."""

    _fields_ = (
        ("magic", c_uint64),
        ("version", c_uint32),
        ("size", c_uint32),
        ("card_count", c_uint32),
        ("driver_loaded", c_uint32),
        ("driver_version", c_char * 32),
        ("hang_file", c_char * 128),
        ("event_count", c_uint64),
        ("events", Event * MAX_EVENTS),
        ("cards", Card * MAX_CARDS),
    )


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "sim_identity": Identity,
    "sim_control": Control,
    "sim_process": Process,
    "sim_sample": Sample,
    "sim_card": Card,
    "sim_event": Event,
    "sim_state": State,
}
