// SPDX-License-Identifier: Apache-2.0
/* The state that the simulator's daemon shares with every process that loads the simulated NVML.
 *
 * One file, mapped by all. gpuwarden/simulator/layout.py mirrors it field by field; a test
 * compares both. Change either and raise SIM_VERSION.
 *
 * Who writes what:
 * - identity: the daemon, before it publishes the file by renaming it into place; never after.
 * - control:  single aligned words, by setters in any process and by the daemon. Each stands alone.
 * - sample:   the daemon alone, between two increments of `sequence` (a seqlock: odd = being
 *             written). Readers copy it and try again if the sequence was odd or has changed.
 * - events:   the daemon alone: entry first, then `event_count`.
 */
#ifndef GPUWARDEN_SIM_STATE_H
#define GPUWARDEN_SIM_STATE_H

#include <stdint.h>

#define SIM_MAGIC 0x4d49535750475557ull
#define SIM_VERSION 3u
#define SIM_MAX_CARDS 8
#define SIM_MAX_PROCESSES 64
#define SIM_MAX_EVENTS 64
#define SIM_MAX_MEMORY_CLOCKS 8
#define SIM_AFFINITY_WORDS 8 /* of 64 CPUs each */

/* sim_identity.capabilities */
#define SIM_CAN_MEMORY_TEMPERATURE (1u << 0)
#define SIM_CAN_POWER_AVERAGE (1u << 1)
#define SIM_CAN_TEMPERATURE_LIMITS (1u << 2)
#define SIM_CAN_MEMORY_LOCK (1u << 3)
#define SIM_CAN_ECC (1u << 4)
#define SIM_CAN_MIG (1u << 5)
#define SIM_CAN_REMAPPED_ROWS (1u << 6)
#define SIM_CAN_RETIRED_PAGES (1u << 7)
#define SIM_CAN_ACOUSTIC (1u << 8)
#define SIM_CAN_FAN (1u << 9)
#define SIM_CAN_SERIAL (1u << 10)

/* sim_control.faults */
#define SIM_FAULT_LOST (1u << 0)
#define SIM_FAULT_SENSOR (1u << 1)
#define SIM_FAULT_HANG (1u << 2)
#define SIM_FAULT_NO_PERMISSION (1u << 3)
#define SIM_FAULT_NO_MEMORY_LOCK (1u << 4)
#define SIM_FAULT_NO_POWER_LIMIT (1u << 5)
#define SIM_FAULT_NO_PROCESS_LIST (1u << 6)
#define SIM_FAULT_NO_PROCESS_MEMORY (1u << 7)

/* sim_process.kinds: the lists that it is in */
#define SIM_COMPUTE (1u << 0)
#define SIM_GRAPHICS (1u << 1)
#define SIM_MPS (1u << 2)

struct sim_identity {
	char name[96];
	char uuid[48];
	char serial[32];
	char pci_bus_id[32]; /* 00000000:41:00.0 */
	uint32_t pci_domain;
	uint32_t pci_bus;
	uint32_t pci_device;
	uint32_t pci_device_id;
	uint32_t pci_subsystem_id;
	uint32_t minor;
	uint32_t architecture;
	uint32_t compute_major;
	uint32_t compute_minor;
	uint32_t capabilities;
	uint64_t memory_total_bytes;
	uint64_t memory_reserved_bytes;
	uint64_t event_types;
	uint32_t limit_minimum_mw;
	uint32_t limit_default_mw;
	uint32_t limit_maximum_mw;
	int32_t shutdown_celsius;
	int32_t slowdown_celsius;
	int32_t maximum_operating_celsius;
	int32_t memory_maximum_celsius; /* 0: none */
	int32_t acoustic_minimum_celsius;
	int32_t acoustic_current_celsius;
	int32_t acoustic_maximum_celsius;
	uint32_t sm_minimum_mhz;
	uint32_t sm_maximum_mhz;
	uint32_t sm_step_mhz;
	uint32_t video_maximum_mhz;
	uint32_t memory_clock_count;
	uint32_t memory_clocks_mhz[SIM_MAX_MEMORY_CLOCKS];
	uint64_t near_cpus[SIM_AFFINITY_WORDS]; /* all 0: as the kernel says */
};

struct sim_control {
	uint64_t sm_lock;     /* least MHz << 32 | most MHz; 0: not locked */
	uint64_t memory_lock; /* the same */
	uint32_t requested_limit_mw;
	uint32_t faults;
	uint32_t attachment; /* grows when the card is lost or the driver reloaded: handles die */
	uint32_t persistence;
};

struct sim_process {
	uint32_t pid;
	uint32_t sm_utilization;
	uint64_t memory_bytes;
	uint64_t seen_unix_us;
	uint32_t kinds;
	uint32_t padding;
};

struct sim_sample {
	uint64_t unix_us;
	uint64_t reasons;
	uint64_t energy_mj;
	uint64_t memory_used_bytes;
	uint64_t violation_power_ns;
	uint64_t violation_software_thermal_ns;
	uint64_t violation_hardware_thermal_ns;
	int32_t temperature_celsius;
	int32_t memory_temperature_celsius;
	uint32_t power_average_mw;
	uint32_t power_instant_mw;
	uint32_t sm_mhz;
	uint32_t memory_mhz;
	uint32_t video_mhz;
	uint32_t performance_state;
	uint32_t utilization;
	uint32_t memory_utilization;
	uint32_t fan_percent;
	uint32_t recovery_action;
	uint32_t process_count;
	uint32_t check; /* the low half of unix_us again: a torn copy shows */
	struct sim_process processes[SIM_MAX_PROCESSES];
};

struct sim_card {
	struct sim_identity identity;
	struct sim_control control;
	uint64_t sequence;
	struct sim_sample sample;
};

struct sim_event {
	uint64_t card;
	uint64_t type;
	uint64_t data;
};

struct sim_state {
	uint64_t magic;
	uint32_t version;
	uint32_t size;
	uint32_t card_count;
	uint32_t driver_loaded; /* 0 once the daemon has gone for good */
	char driver_version[32];
	char hang_file[128]; /* a write to it blocks while a card hangs; empty: none could be made */
	uint64_t event_count;
	struct sim_event events[SIM_MAX_EVENTS];
	struct sim_card cards[SIM_MAX_CARDS];
};

#endif
