// SPDX-License-Identifier: Apache-2.0
/* nvmlDeviceGetFieldValues: the values that have a number instead of a function. */
#include "core.h"

#include <string.h>

enum { FIELD_ECC_CURRENT = 1, FIELD_ECC_PENDING = 2, FIELD_POWER_VIOLATION = 74,
       FIELD_THERMAL_VIOLATION = 75, FIELD_MEMORY_TEMPERATURE = 82, FIELD_ENERGY = 83,
       FIELD_REMAPPED_CORRECTED = 142, FIELD_REMAPPED_FAILED = 145, FIELD_POWER_AVERAGE = 185,
       FIELD_POWER_INSTANT = 186, FIELD_LIMIT_MINIMUM = 187, FIELD_LIMIT_MAXIMUM = 188,
       FIELD_LIMIT_DEFAULT = 189, FIELD_LIMIT_CURRENT = 190, FIELD_LIMIT_REQUESTED = 192,
       FIELD_SHUTDOWN_OFFSET = 193, FIELD_SLOWDOWN_OFFSET = 194, FIELD_MEMORY_OFFSET = 195,
       FIELD_MAXIMUM_OFFSET = 196, FIELD_RECOVERY_ACTION = 230, FIELD_SOFTWARE_THERMAL = 269,
       FIELD_HARDWARE_THERMAL = 270, FIELD_POWER_BRAKE = 271 };

static nvmlReturn_t answer_unsigned(nvmlFieldValue_t *field, bool supported, unsigned int value)
{
	field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
	field->value.uiVal = value;
	return supported ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t answer_long(nvmlFieldValue_t *field, unsigned long long value)
{
	field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
	field->value.ullVal = value;
	return NVML_SUCCESS;
}

/* T.Limit fields: degrees from the maximum operating temperature, not temperatures. */
static nvmlReturn_t answer_offset(nvmlFieldValue_t *field, const struct sim_card *card, int celsius)
{
	field->valueType = NVML_VALUE_TYPE_SIGNED_INT;
	field->value.siVal = card->identity.maximum_operating_celsius - celsius;
	return sim_can(card, SIM_CAN_TEMPERATURE_LIMITS) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t answer_memory_temperature(nvmlFieldValue_t *field, const struct sim_card *card,
					      const struct sim_sample *sample)
{
	if (sim_has_fault(card, SIM_FAULT_SENSOR))
		return NVML_ERROR_UNKNOWN;
	return answer_unsigned(field, sim_can(card, SIM_CAN_MEMORY_TEMPERATURE),
			       (unsigned int)sample->memory_temperature_celsius);
}

static nvmlReturn_t answer_limits(nvmlFieldValue_t *field, const struct sim_card *card)
{
	const struct sim_identity *identity = &card->identity;
	switch (field->fieldId) {
	case FIELD_LIMIT_MINIMUM:
		return answer_unsigned(field, true, identity->limit_minimum_mw);
	case FIELD_LIMIT_MAXIMUM:
		return answer_unsigned(field, true, identity->limit_maximum_mw);
	case FIELD_LIMIT_DEFAULT:
		return answer_unsigned(field, true, identity->limit_default_mw);
	default:
		return answer_unsigned(field, true, sim_load32(&card->control.requested_limit_mw));
	}
}

static nvmlReturn_t answer_temperature_limits(nvmlFieldValue_t *field, const struct sim_card *card)
{
	const struct sim_identity *identity = &card->identity;
	switch (field->fieldId) {
	case FIELD_SHUTDOWN_OFFSET:
		return answer_offset(field, card, identity->shutdown_celsius);
	case FIELD_SLOWDOWN_OFFSET:
		return answer_offset(field, card, identity->slowdown_celsius);
	default: /* memory and die count from their own maxima: 0 */
		return answer_offset(field, card, identity->maximum_operating_celsius);
	}
}

static nvmlReturn_t answer(nvmlFieldValue_t *field, const struct sim_card *card,
			   const struct sim_sample *sample)
{
	switch (field->fieldId) {
	case FIELD_ECC_CURRENT:
	case FIELD_ECC_PENDING:
		return answer_unsigned(field, sim_can(card, SIM_CAN_ECC), 1);
	case FIELD_POWER_VIOLATION:
		return answer_long(field, sample->violation_power_ns);
	case FIELD_THERMAL_VIOLATION:
		return answer_long(field, sample->violation_software_thermal_ns +
						  sample->violation_hardware_thermal_ns);
	case FIELD_SOFTWARE_THERMAL:
		return answer_long(field, sample->violation_software_thermal_ns);
	case FIELD_HARDWARE_THERMAL:
		return answer_long(field, sample->violation_hardware_thermal_ns);
	case FIELD_POWER_BRAKE:
		return answer_long(field, 0);
	case FIELD_MEMORY_TEMPERATURE:
		return answer_memory_temperature(field, card, sample);
	case FIELD_ENERGY:
		return answer_long(field, sample->energy_mj);
	case FIELD_POWER_AVERAGE:
		return answer_unsigned(field, sim_can(card, SIM_CAN_POWER_AVERAGE),
				       sample->power_average_mw);
	case FIELD_POWER_INSTANT:
		return answer_unsigned(field, true, sample->power_instant_mw);
	case FIELD_RECOVERY_ACTION:
		return answer_unsigned(field, true, sample->recovery_action);
	case FIELD_LIMIT_MINIMUM:
	case FIELD_LIMIT_MAXIMUM:
	case FIELD_LIMIT_DEFAULT:
	case FIELD_LIMIT_CURRENT:
	case FIELD_LIMIT_REQUESTED:
		return answer_limits(field, card);
	case FIELD_SHUTDOWN_OFFSET:
	case FIELD_SLOWDOWN_OFFSET:
	case FIELD_MEMORY_OFFSET:
	case FIELD_MAXIMUM_OFFSET:
		return answer_temperature_limits(field, card);
	default:
		if (field->fieldId >= FIELD_REMAPPED_CORRECTED &&
		    field->fieldId <= FIELD_REMAPPED_FAILED)
			return answer_unsigned(field, sim_can(card, SIM_CAN_REMAPPED_ROWS), 0);
		return NVML_ERROR_NOT_SUPPORTED;
	}
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!fields || count <= 0)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (int i = 0; i < count; i++) {
		memset(&fields[i].value, 0, sizeof fields[i].value);
		fields[i].timestamp = (long long)sample.unix_us;
		fields[i].latencyUsec = 0;
		fields[i].nvmlReturn = answer(&fields[i], card, &sample);
	}
	return NVML_SUCCESS;
}
