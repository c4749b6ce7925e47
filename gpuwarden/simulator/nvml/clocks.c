// SPDX-License-Identifier: Apache-2.0
/* Clocks: what they are, which there are, locking them. */
#include "core.h"

#define TDP_CLOCK 0xffffff01u       /* NVML_CLOCK_LIMIT_ID_TDP */
#define UNLIMITED_CLOCK 0xffffff02u /* NVML_CLOCK_LIMIT_ID_UNLIMITED */

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!mhz || type > NVML_CLOCK_VIDEO)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (type == NVML_CLOCK_MEM)
		*mhz = sample.memory_mhz;
	else
		*mhz = type == NVML_CLOCK_VIDEO ? sample.video_mhz : sample.sm_mhz;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type,
					   unsigned int *mhz)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!mhz || type > NVML_CLOCK_VIDEO)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (type == NVML_CLOCK_MEM)
		*mhz = card->identity.memory_clocks_mhz[0];
	else
		*mhz = type == NVML_CLOCK_VIDEO ? card->identity.video_maximum_mhz
						: card->identity.sm_maximum_mhz;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned int *state)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result == NVML_SUCCESS && !state)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*state = sample.performance_state;
	return result;
}

/* The usual two calls: without room it answers how much is needed. */
static nvmlReturn_t check_room(unsigned int *room, unsigned int needed, const void *target)
{
	bool fits = *room >= needed && target;
	*room = needed;
	return fits ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

API nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count,
						    unsigned int *mhz)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	result = check_room(count, card->identity.memory_clock_count, mhz);
	for (unsigned int i = 0; result == NVML_SUCCESS && i < *count; i++)
		mhz[i] = card->identity.memory_clocks_mhz[i];
	return result;
}

static bool is_memory_clock(const struct sim_card *card, unsigned int mhz)
{
	for (unsigned int i = 0; i < card->identity.memory_clock_count; i++)
		if (card->identity.memory_clocks_mhz[i] == mhz)
			return true;
	return false;
}

API nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned int memory_mhz,
						      unsigned int *count, unsigned int *mhz)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!is_memory_clock(card, memory_mhz))
		return NVML_ERROR_NOT_FOUND;
	const struct sim_identity *identity = &card->identity;
	unsigned int range = identity->sm_maximum_mhz - identity->sm_minimum_mhz;
	result = check_room(count, range / identity->sm_step_mhz + 1, mhz);
	for (unsigned int i = 0; result == NVML_SUCCESS && i < *count; i++)
		mhz[i] = identity->sm_maximum_mhz - i * identity->sm_step_mhz;
	return result;
}

static void store_lock(uint64_t *word, unsigned int least, unsigned int most)
{
	__atomic_store_n(word, (uint64_t)least << 32 | most, __ATOMIC_RELEASE);
}

API nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned int least,
					      unsigned int most)
{
	const struct sim_card *card;
	struct sim_control *control;
	nvmlReturn_t result = sim_writable(device, &card, &control);
	if (result != NVML_SUCCESS)
		return result;
	const struct sim_identity *identity = &card->identity;
	if (most == TDP_CLOCK || most == UNLIMITED_CLOCK)
		most = identity->sm_maximum_mhz;
	if (least == TDP_CLOCK || least == UNLIMITED_CLOCK)
		least = identity->sm_maximum_mhz;
	if (least > most || least < identity->sm_minimum_mhz || most > identity->sm_maximum_mhz)
		return NVML_ERROR_INVALID_ARGUMENT;
	store_lock(&control->sm_lock, least, most);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
	const struct sim_card *card;
	struct sim_control *control;
	nvmlReturn_t result = sim_writable(device, &card, &control);
	if (result == NVML_SUCCESS)
		store_lock(&control->sm_lock, 0, 0);
	return result;
}

static nvmlReturn_t writable_memory_lock(nvmlDevice_t device, const struct sim_card **card,
					 struct sim_control **control)
{
	nvmlReturn_t result = sim_writable(device, card, control);
	if (result != NVML_SUCCESS)
		return result;
	if (!sim_can(*card, SIM_CAN_MEMORY_LOCK) || sim_has_fault(*card, SIM_FAULT_NO_MEMORY_LOCK))
		return NVML_ERROR_NOT_SUPPORTED;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, unsigned int least,
						 unsigned int most)
{
	const struct sim_card *card;
	struct sim_control *control;
	nvmlReturn_t result = writable_memory_lock(device, &card, &control);
	if (result != NVML_SUCCESS)
		return result;
	if (least > most || !is_memory_clock(card, least) || !is_memory_clock(card, most))
		return NVML_ERROR_INVALID_ARGUMENT;
	store_lock(&control->memory_lock, least, most);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device)
{
	const struct sim_card *card;
	struct sim_control *control;
	nvmlReturn_t result = writable_memory_lock(device, &card, &control);
	if (result == NVML_SUCCESS)
		store_lock(&control->memory_lock, 0, 0);
	return result;
}
