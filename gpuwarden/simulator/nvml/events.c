// SPDX-License-Identifier: Apache-2.0
/* Events: a set of cards and types, and waiting until one of them happens. */
#include "core.h"

#include <stdlib.h>
#include <time.h>

#define SET_MARK 0x45564e54u
#define POLL_NS 50000000L
#define KNOWN_TYPES 0xffffull

struct sim_event_set {
	uint32_t mark;
	uint64_t next; /* the first event that was not looked at yet */
	uint64_t types[SIM_MAX_CARDS];
	nvmlDevice_t devices[SIM_MAX_CARDS];
};

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	const struct sim_state *state = sim_state();
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	if (!set)
		return NVML_ERROR_INVALID_ARGUMENT;
	struct sim_event_set *made = calloc(1, sizeof *made);
	if (!made)
		return NVML_ERROR_MEMORY;
	made->mark = SET_MARK;
	made->next = sim_load64(&state->event_count);
	*set = made;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	if (!sim_state())
		return NVML_ERROR_UNINITIALIZED;
	if (!set || set->mark != SET_MARK)
		return NVML_ERROR_INVALID_ARGUMENT;
	set->mark = 0;
	free(set);
	return NVML_SUCCESS;
}

/* Events from before the registration are not delivered. */
API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
					  nvmlEventSet_t set)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!set || set->mark != SET_MARK || (types & ~KNOWN_TYPES))
		return NVML_ERROR_INVALID_ARGUMENT;
	if (types & ~card->identity.event_types)
		return NVML_ERROR_NOT_SUPPORTED;
	size_t index = (size_t)(card - sim_state()->cards);
	set->types[index] |= types;
	set->devices[index] = device;
	return NVML_SUCCESS;
}

static bool take_event(const struct sim_state *state, nvmlEventSet_t set, nvmlEventData_t *data)
{
	uint64_t count = sim_load64(&state->event_count);
	if (count - set->next > SIM_MAX_EVENTS)
		set->next = count - SIM_MAX_EVENTS;
	while (set->next < count) {
		const struct sim_event *event = &state->events[set->next++ % SIM_MAX_EVENTS];
		if (event->card >= SIM_MAX_CARDS || !(set->types[event->card] & event->type))
			continue;
		data->device = set->devices[event->card];
		data->eventType = event->type;
		data->eventData = event->data;
		data->gpuInstanceId = data->computeInstanceId = NVML_NO_INSTANCE;
		return true;
	}
	return false;
}

static bool any_card_is_lost(const struct sim_state *state, nvmlEventSet_t set)
{
	for (unsigned int i = 0; i < state->card_count; i++) {
		uint32_t attachment = (uint32_t)((uintptr_t)set->devices[i] >> 16);
		if (set->devices[i] && sim_is_lost(&state->cards[i], attachment))
			return true;
	}
	return false;
}

static long long now_ms(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data,
				     unsigned int timeout_ms)
{
	const struct timespec pause = {0, POLL_NS};
	long long deadline = now_ms() + timeout_ms;
	if (!sim_state())
		return NVML_ERROR_UNINITIALIZED;
	if (!set || set->mark != SET_MARK || !data)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (;;) {
		const struct sim_state *state = sim_state();
		if (!state)
			return NVML_ERROR_UNINITIALIZED;
		if (take_event(state, set, data))
			return NVML_SUCCESS;
		if (any_card_is_lost(state, set)) /* of one card, said for the whole set */
			return NVML_ERROR_GPU_IS_LOST;
		if (now_ms() >= deadline)
			return NVML_ERROR_TIMEOUT;
		nanosleep(&pause, NULL);
	}
}
