// SPDX-License-Identifier: Apache-2.0
/* The node: versions, error texts, how many cards, handles by index, UUID and PCI address. */
#include "core.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CUDA_DRIVER_VERSION 13000

static const struct {
	nvmlReturn_t code;
	const char *text;
} ERRORS[] = {
	{NVML_SUCCESS, "Success"},
	{NVML_ERROR_UNINITIALIZED, "Uninitialized"},
	{NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
	{NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
	{NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
	{NVML_ERROR_NOT_FOUND, "Not Found"},
	{NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
	{NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
	{NVML_ERROR_TIMEOUT, "Timeout"},
	{NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
	{NVML_ERROR_LIB_RM_VERSION_MISMATCH, "RM has detected an NVML/RM version mismatch"},
	{NVML_ERROR_MEMORY, "Insufficient Memory"},
	{NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "The argument version is not supported"},
};

API const char *nvmlErrorString(nvmlReturn_t result)
{
	for (size_t i = 0; i < sizeof ERRORS / sizeof ERRORS[0]; i++)
		if (ERRORS[i].code == result)
			return ERRORS[i].text;
	return "Unknown Error";
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	const struct sim_state *state = sim_state();
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	return sim_copy_text(version, length, state->driver_version);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	const struct sim_state *state = sim_state();
	char text[48];
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	snprintf(text, sizeof text, "%d.%s", CUDA_DRIVER_VERSION / 1000, state->driver_version);
	return sim_copy_text(version, length, text);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
	if (!sim_state())
		return NVML_ERROR_UNINITIALIZED;
	if (!version)
		return NVML_ERROR_INVALID_ARGUMENT;
	*version = CUDA_DRIVER_VERSION;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	return nvmlSystemGetCudaDriverVersion(version);
}

API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
	char path[64], text[1024] = "";
	if (!sim_state())
		return NVML_ERROR_UNINITIALIZED;
	snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NVML_ERROR_NOT_FOUND;
	ssize_t size = read(fd, text, sizeof text - 1); /* up to its first NUL: argv[0] */
	close(fd);
	return size < 0 ? NVML_ERROR_UNKNOWN : sim_copy_text(name, length, text);
}

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	const struct sim_state *state = sim_state();
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*count = sim_card_count(state);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	const struct sim_state *state = sim_state();
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	if (!device || index >= sim_card_count(state))
		return NVML_ERROR_INVALID_ARGUMENT;
	return sim_handle_of(index, device);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	const struct sim_state *state = sim_state();
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	if (!device || !uuid)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned int i = 0; i < sim_card_count(state); i++)
		if (!strcmp(state->cards[i].identity.uuid, uuid))
			return sim_handle_of(i, device);
	return NVML_ERROR_NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *device)
{
	const struct sim_state *state = sim_state();
	unsigned int domain = 0, bus, slot, function;
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	if (!device || !address)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (sscanf(address, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4) {
		domain = 0;
		if (sscanf(address, "%x:%x.%x", &bus, &slot, &function) != 3)
			return NVML_ERROR_INVALID_ARGUMENT;
	}
	for (unsigned int i = 0; i < sim_card_count(state); i++) {
		const struct sim_identity *card = &state->cards[i].identity;
		if (card->pci_domain == domain && card->pci_bus == bus && card->pci_device == slot)
			return sim_handle_of(i, device);
	}
	return NVML_ERROR_NOT_FOUND;
}
