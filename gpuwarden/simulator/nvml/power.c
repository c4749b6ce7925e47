// SPDX-License-Identifier: Apache-2.0
/* Watts: what the card draws, what it may draw, and setting that. */
#include "core.h"

API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result == NVML_SUCCESS && !milliwatts)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*milliwatts = sim_can(card, SIM_CAN_POWER_AVERAGE) ? sample.power_average_mw
								   : sample.power_instant_mw;
	return result;
}

API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device,
						     unsigned long long *millijoules)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result == NVML_SUCCESS && !millijoules)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*millijoules = sample.energy_mj;
	return result;
}

/* The requested limit. */
API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result == NVML_SUCCESS && !milliwatts)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*milliwatts = sim_load32(&card->control.requested_limit_mw);
	return result;
}

/* The least of all limits; the simulator has no other than the requested one. */
API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
	return nvmlDeviceGetPowerManagementLimit(device, milliwatts);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device,
							  unsigned int *milliwatts)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result == NVML_SUCCESS && !milliwatts)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*milliwatts = card->identity.limit_default_mw;
	return result;
}

API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device,
							      unsigned int *least,
							      unsigned int *most)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!least || !most)
		return NVML_ERROR_INVALID_ARGUMENT;
	*least = card->identity.limit_minimum_mw;
	*most = card->identity.limit_maximum_mw;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int milliwatts)
{
	const struct sim_card *card;
	struct sim_control *control;
	nvmlReturn_t result = sim_writable(device, &card, &control);
	if (result != NVML_SUCCESS)
		return result;
	if (sim_has_fault(card, SIM_FAULT_NO_POWER_LIMIT))
		return NVML_ERROR_NOT_SUPPORTED;
	if (milliwatts < card->identity.limit_minimum_mw ||
	    milliwatts > card->identity.limit_maximum_mw)
		return NVML_ERROR_INVALID_ARGUMENT;
	__atomic_store_n(&control->requested_limit_mw, milliwatts, __ATOMIC_RELEASE);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device,
						      nvmlPowerValue_v2_t *value)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!value)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (value->version != NVML_STRUCT_VERSION(nvmlPowerValue_v2_t, 2))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	if (value->powerScope != NVML_POWER_SCOPE_GPU)
		return NVML_ERROR_NOT_SUPPORTED;
	return nvmlDeviceSetPowerManagementLimit(device, value->powerValueMw);
}
