// SPDX-License-Identifier: Apache-2.0
/* Memory, who holds it, how busy the card is, the health of its memory cells. */
#include "core.h"

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!memory)
		return NVML_ERROR_INVALID_ARGUMENT;
	memory->total = card->identity.memory_total_bytes;
	memory->used = sample.memory_used_bytes; /* the old call counts what the driver keeps */
	memory->free = memory->total - memory->used;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	nvmlMemory_t old;
	const struct sim_card *card;
	nvmlReturn_t result = nvmlDeviceGetMemoryInfo(device, &old);
	if (result != NVML_SUCCESS)
		return result;
	if (!memory)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (memory->version != NVML_STRUCT_VERSION(nvmlMemory_v2_t, 2))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	memory->total = old.total;
	memory->free = old.free;
	memory->reserved = card->identity.memory_reserved_bytes;
	memory->used = old.used - memory->reserved;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!rates)
		return NVML_ERROR_INVALID_ARGUMENT;
	rates->gpu = sample.utilization;
	rates->memory = sample.memory_utilization;
	return NVML_SUCCESS;
}

/* One of the lists. Asked with too little room it says how much is wanted, as the driver does. */
static nvmlReturn_t list_processes(nvmlDevice_t device, uint32_t kind, unsigned int *count,
				   nvmlProcessInfo_t *processes)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (sim_has_fault(card, SIM_FAULT_NO_PROCESS_LIST))
		return NVML_ERROR_NO_PERMISSION;
	bool tells = !sim_has_fault(card, SIM_FAULT_NO_PROCESS_MEMORY);
	unsigned int room = processes ? *count : 0, found = 0;
	for (unsigned int i = 0; i < sample.process_count; i++) {
		const struct sim_process *process = &sample.processes[i];
		if (!(process->kinds & kind))
			continue;
		if (found < room)
			processes[found] = (nvmlProcessInfo_t){
				process->pid,
				tells ? process->memory_bytes : NVML_VALUE_NOT_AVAILABLE,
				NVML_NO_INSTANCE, NVML_NO_INSTANCE};
		found++;
	}
	*count = found;
	return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
							 nvmlProcessInfo_t *processes)
{
	return list_processes(device, SIM_COMPUTE, count, processes);
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
							 nvmlProcessInfo_t *processes)
{
	return list_processes(device, SIM_COMPUTE, count, processes);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
							  nvmlProcessInfo_t *processes)
{
	return list_processes(device, SIM_GRAPHICS, count, processes);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
							  nvmlProcessInfo_t *processes)
{
	return list_processes(device, SIM_GRAPHICS, count, processes);
}

API nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
							    nvmlProcessInfo_t *processes)
{
	return list_processes(device, SIM_MPS, count, processes);
}

API nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
							    nvmlProcessInfo_t *processes)
{
	return list_processes(device, SIM_MPS, count, processes);
}

/* Samples newer than a timestamp (microseconds); none at all is NOT_FOUND. */
API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
						 nvmlProcessUtilizationSample_t *samples,
						 unsigned int *count, unsigned long long newer_than)
{
	const struct sim_card *card;
	struct sim_sample sample;
	nvmlReturn_t result = sim_sample_of(device, &card, &sample);
	if (result != NVML_SUCCESS)
		return result;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	unsigned int room = *count, found = 0;
	for (unsigned int i = 0; i < sample.process_count; i++) {
		const struct sim_process *process = &sample.processes[i];
		if (!process->kinds || process->seen_unix_us <= newer_than)
			continue;
		if (samples && found < room)
			samples[found] = (nvmlProcessUtilizationSample_t){
				process->pid, process->seen_unix_us, process->sm_utilization,
				process->sm_utilization / 2, 0, 0};
		found++;
	}
	*count = found;
	if (found == 0)
		return NVML_ERROR_NOT_FOUND;
	return samples && found <= room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current,
				      unsigned int *pending)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!current || !pending)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!sim_can(card, SIM_CAN_ECC))
		return NVML_ERROR_NOT_SUPPORTED;
	*current = *pending = 1;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int error_type,
					     unsigned int counter_type, unsigned long long *count)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!count || error_type > 1 || counter_type > 1)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!sim_can(card, SIM_CAN_ECC))
		return NVML_ERROR_NOT_SUPPORTED;
	*count = 0;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected,
					   unsigned int *uncorrected, unsigned int *pending,
					   unsigned int *failed)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!corrected || !uncorrected || !pending || !failed)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!sim_can(card, SIM_CAN_REMAPPED_ROWS))
		return NVML_ERROR_NOT_SUPPORTED;
	*corrected = *uncorrected = *pending = *failed = 0;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned int *pending)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!pending)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!sim_can(card, SIM_CAN_RETIRED_PAGES))
		return NVML_ERROR_NOT_SUPPORTED;
	*pending = 0;
	return NVML_SUCCESS;
}
