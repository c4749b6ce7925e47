// SPDX-License-Identifier: Apache-2.0
/* What every file of the library builds on: handles, samples, the right to write. */
#ifndef GPUWARDEN_SIM_CORE_H
#define GPUWARDEN_SIM_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvml.h"
#include "state.h"

/* The mapped state, or NULL before nvmlInit and after the last nvmlShutdown. */
const struct sim_state *sim_state(void);

/* Cards that this process has attached: all of them, or none if it started with NO_ATTACH. */
unsigned int sim_card_count(const struct sim_state *state);

/* The card behind a handle. Answers as the driver does: uninitialised, not a handle, lost; does
 * not return while the card hangs. */
nvmlReturn_t sim_card_of(nvmlDevice_t device, const struct sim_card **card);

/* The same with a consistent copy of the card's sample. */
nvmlReturn_t sim_sample_of(nvmlDevice_t device, const struct sim_card **card,
			   struct sim_sample *sample);

/* The card's settings for writing: needs CAP_SYS_ADMIN in the caller's effective set. */
nvmlReturn_t sim_writable(nvmlDevice_t device, const struct sim_card **card,
			  struct sim_control **control);

/* A handle for a card that is there; blocks while it hangs. */
nvmlReturn_t sim_handle_of(unsigned int index, nvmlDevice_t *device);

bool sim_is_lost(const struct sim_card *card, uint32_t attachment);
uint32_t sim_load32(const uint32_t *word);
uint64_t sim_load64(const uint64_t *word);

static inline bool sim_can(const struct sim_card *card, uint32_t capability)
{
	return (card->identity.capabilities & capability) != 0;
}

static inline bool sim_has_fault(const struct sim_card *card, uint32_t fault)
{
	return (sim_load32(&card->control.faults) & fault) != 0;
}

/* Copies a string with its end; INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t sim_copy_text(char *target, unsigned int size, const char *text);

#endif
