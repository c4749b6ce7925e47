// SPDX-License-Identifier: Apache-2.0
/* What a card is: name, addresses, place in the node, modes that the simulator doesn't change. */
#define _GNU_SOURCE
#include "core.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BITS_PER_WORD 64u

/* One number of the card's identity, as most getters answer it. */
#define IDENTITY_GETTER(function, type, expression)                             \
	API nvmlReturn_t function(nvmlDevice_t device, type *value)             \
	{                                                                       \
		const struct sim_card *card;                                    \
		nvmlReturn_t result = sim_card_of(device, &card);               \
		if (result == NVML_SUCCESS && !value)                           \
			result = NVML_ERROR_INVALID_ARGUMENT;                   \
		if (result == NVML_SUCCESS)                                     \
			*value = (type)(expression);                            \
		return result;                                                  \
	}

IDENTITY_GETTER(nvmlDeviceGetMinorNumber, unsigned int, card->identity.minor)
IDENTITY_GETTER(nvmlDeviceGetIndex, unsigned int, card - sim_state()->cards)
IDENTITY_GETTER(nvmlDeviceGetArchitecture, unsigned int, card->identity.architecture)
IDENTITY_GETTER(nvmlDeviceGetComputeMode, unsigned int, 0)
IDENTITY_GETTER(nvmlDeviceGetVirtualizationMode, unsigned int, NVML_VIRTUALIZATION_MODE_PASSTHROUGH)
IDENTITY_GETTER(nvmlDeviceGetPersistenceMode, unsigned int, sim_load32(&card->control.persistence))
IDENTITY_GETTER(nvmlDeviceGetSupportedEventTypes, unsigned long long, card->identity.event_types)

API nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned int mode)
{
	const struct sim_card *card;
	struct sim_control *control;
	if (mode > 1)
		return NVML_ERROR_INVALID_ARGUMENT;
	nvmlReturn_t result = sim_writable(device, &card, &control);
	if (result == NVML_SUCCESS)
		__atomic_store_n(&control->persistence, mode, __ATOMIC_RELEASE);
	return result;
}

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	return result == NVML_SUCCESS ? sim_copy_text(name, length, card->identity.name) : result;
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	return result == NVML_SUCCESS ? sim_copy_text(uuid, length, card->identity.uuid) : result;
}

API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!sim_can(card, SIM_CAN_SERIAL))
		return NVML_ERROR_NOT_SUPPORTED;
	return sim_copy_text(serial, length, card->identity.serial);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!major || !minor)
		return NVML_ERROR_INVALID_ARGUMENT;
	*major = (int)card->identity.compute_major;
	*minor = (int)card->identity.compute_minor;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!info)
		return NVML_ERROR_INVALID_ARGUMENT;
	const struct sim_identity *identity = &card->identity;
	memset(info, 0, sizeof *info);
	snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0",
		 identity->pci_domain & 0xffff, identity->pci_bus & 0xff,
		 identity->pci_device & 0xff);
	memcpy(info->busId, identity->pci_bus_id, sizeof info->busId);
	info->domain = identity->pci_domain;
	info->bus = identity->pci_bus;
	info->device = identity->pci_device;
	info->pciDeviceId = identity->pci_device_id;
	info->pciSubSystemId = identity->pci_subsystem_id;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current,
				      unsigned int *pending)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!current || !pending)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!sim_can(card, SIM_CAN_MIG))
		return NVML_ERROR_NOT_SUPPORTED;
	*current = *pending = 0;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGspFirmwareMode(nvmlDevice_t device, unsigned int *enabled,
					      unsigned int *standard)
{
	const struct sim_card *card;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!enabled || !standard)
		return NVML_ERROR_INVALID_ARGUMENT;
	*enabled = *standard = 1;
	return NVML_SUCCESS;
}

/* The node of the card itself: coherent cards (Grace) have one, PCIe cards don't. */
API nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, int *node)
{
	const struct sim_card *card;
	(void)node;
	nvmlReturn_t result = sim_card_of(device, &card);
	return result == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : result;
}

/* Reads a file of the card's PCI device in sysfs: the kernel knows where the card is, not we. */
static bool read_pci_file(const struct sim_card *card, const char *file, char *text, size_t size)
{
	const struct sim_identity *identity = &card->identity;
	char path[128];
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.0/%s",
		 identity->pci_domain, identity->pci_bus, identity->pci_device, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t length = read(fd, text, size - 1);
	close(fd);
	if (length <= 0)
		return false;
	text[length] = '\0';
	return true;
}

/* The kernel's mask ("00000000,0000ffff": groups of 32 bits, highest first) as 64-bit words. */
static void parse_mask(const char *text, unsigned int words, unsigned long long *mask)
{
	size_t digit = strcspn(text, "\n");
	unsigned int bit = 0;
	while (digit-- > 0) {
		if (text[digit] == ',')
			continue;
		char one[2] = {text[digit], '\0'};
		unsigned long long value = strtoull(one, NULL, 16);
		if (bit / BITS_PER_WORD < words)
			mask[bit / BITS_PER_WORD] |= value << (bit % BITS_PER_WORD);
		bit += 4;
	}
}

/* The CPUs that cards.json calls near the card; false where it leaves that to the kernel. */
static bool configured_mask(const struct sim_card *card, unsigned int words,
			    unsigned long long *mask)
{
	unsigned long long any = 0;
	for (unsigned int word = 0; word < SIM_AFFINITY_WORDS; word++) {
		any |= card->identity.near_cpus[word];
		if (word < words)
			mask[word] = card->identity.near_cpus[word];
	}
	return any != 0;
}

/* As configured, else as the kernel says. Where it names no node for the card (-1), its "local" CPUs
 * are all that there are: then we know nothing, and say so. */
API nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned int words,
						     unsigned long *cpus, unsigned int scope)
{
	const struct sim_card *card;
	char text[1024];
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!cpus || words == 0 || scope > 1)
		return NVML_ERROR_INVALID_ARGUMENT;
	unsigned long long *mask = (unsigned long long *)cpus;
	memset(mask, 0, words * sizeof *mask);
	if (configured_mask(card, words, mask))
		return NVML_SUCCESS;
	if (read_pci_file(card, "numa_node", text, sizeof text) && strtol(text, NULL, 10) < 0)
		return NVML_ERROR_NOT_SUPPORTED;
	if (read_pci_file(card, "local_cpus", text, sizeof text)) {
		parse_mask(text, words, mask);
		return NVML_SUCCESS;
	}
	/* No such device in this machine: local to all its processors. */
	long count = sysconf(_SC_NPROCESSORS_ONLN);
	for (unsigned int bit = 0; bit < count && bit / BITS_PER_WORD < words; bit++)
		mask[bit / BITS_PER_WORD] |= 1ull << (bit % BITS_PER_WORD);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int words,
					  unsigned long *cpus)
{
	return nvmlDeviceGetCpuAffinityWithinScope(device, words, cpus, 0);
}

API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int words,
					     unsigned long *nodes, unsigned int scope)
{
	const struct sim_card *card;
	char text[32];
	long node = 0;
	nvmlReturn_t result = sim_card_of(device, &card);
	if (result != NVML_SUCCESS)
		return result;
	if (!nodes || words == 0 || scope > 1)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (read_pci_file(card, "numa_node", text, sizeof text))
		node = strtol(text, NULL, 10);
	if (node < 0) /* the kernel doesn't know; a real driver then answers node 0 */
		node = 0;
	unsigned long long *mask = (unsigned long long *)nodes;
	memset(mask, 0, words * sizeof *mask);
	if ((unsigned long)node / BITS_PER_WORD < words)
		mask[node / BITS_PER_WORD] |= 1ull << (node % BITS_PER_WORD);
	return NVML_SUCCESS;
}
