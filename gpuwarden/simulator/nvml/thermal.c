// SPDX-License-Identifier: Apache-2.0
/* Temperatures, thresholds, clock-event reasons and how long they lasted. */
#include "core.h"

/* The reasons that the driver of an H200 names as supported. */
#define SUPPORTED_REASONS 511ull

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor,
					  unsigned int *celsius)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!celsius || sensor != NVML_TEMPERATURE_GPU)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (sim_has_fault(card, SIM_FAULT_SENSOR))
		return NVML_ERROR_UNKNOWN;
	*celsius = (unsigned int)sample.temperature_celsius;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
	unsigned int celsius = 0;
	if (temperature && temperature->version != NVML_STRUCT_VERSION(nvmlTemperature_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	nvmlReturn_t result = nvmlDeviceGetTemperature(
		device, temperature ? temperature->sensorType : ~0u, &celsius);
	if (result == NVML_SUCCESS)
		temperature->temperature = (int)celsius;
	return result;
}

static int threshold_of(const struct sim_identity *identity, unsigned int type)
{
	switch (type) {
	case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN:
		return identity->shutdown_celsius;
	case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN:
		return identity->slowdown_celsius;
	case NVML_TEMPERATURE_THRESHOLD_MEM_MAX:
		return identity->memory_maximum_celsius;
	case NVML_TEMPERATURE_THRESHOLD_GPU_MAX:
		return identity->maximum_operating_celsius;
	case NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN:
		return identity->acoustic_minimum_celsius;
	case NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR:
		return identity->acoustic_current_celsius;
	case NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX:
		return identity->acoustic_maximum_celsius;
	default:
		return 0;
	}
}

API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned int type,
						   unsigned int *celsius)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!celsius || type >= NVML_TEMPERATURE_THRESHOLD_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	int value = threshold_of(&card->identity, type);
	if (!value)
		return NVML_ERROR_NOT_SUPPORTED;
	*celsius = (unsigned int)value;
	return NVML_SUCCESS;
}

/* Degrees to the nearest limit of die or memory; below zero once it is passed. */
API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device,
						nvmlMarginTemperature_t *margin)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!margin)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (margin->version != NVML_STRUCT_VERSION(nvmlMarginTemperature_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	if (!sim_can(card, SIM_CAN_TEMPERATURE_LIMITS))
		return NVML_ERROR_NOT_SUPPORTED;
	if (sim_has_fault(card, SIM_FAULT_SENSOR))
		return NVML_ERROR_UNKNOWN;
	int die = card->identity.maximum_operating_celsius - sample.temperature_celsius;
	int memory = card->identity.memory_maximum_celsius - sample.memory_temperature_celsius;
	bool memory_is_nearer = sim_can(card, SIM_CAN_MEMORY_TEMPERATURE) && memory < die;
	margin->marginTemperature = memory_is_nearer ? memory : die;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned int *percent)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!percent)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!sim_can(card, SIM_CAN_FAN))
		return NVML_ERROR_NOT_SUPPORTED;
	*percent = sample.fan_percent;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device,
							unsigned long long *reasons)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result == NVML_SUCCESS && !reasons)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*reasons = sample.reasons;
	return result;
}

API nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device,
							   unsigned long long *reasons)
{
	return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

API nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device,
							  unsigned long long *reasons)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result == NVML_SUCCESS && !reasons)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*reasons = SUPPORTED_REASONS;
	return result;
}

API nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device,
							     unsigned long long *reasons)
{
	return nvmlDeviceGetSupportedClocksEventReasons(device, reasons);
}

API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned int policy,
					      nvmlViolationTime_t *violation)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!violation || policy >= NVML_PERF_POLICY_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	violation->referenceTime = sample.unix_us;
	violation->violationTime = 0;
	if (policy == NVML_PERF_POLICY_POWER)
		violation->violationTime = sample.violation_power_ns;
	if (policy == NVML_PERF_POLICY_THERMAL)
		violation->violationTime = sample.violation_software_thermal_ns +
					   sample.violation_hardware_thermal_ns;
	return NVML_SUCCESS;
}
