// SPDX-License-Identifier: Apache-2.0
/* The mapped state: opening it, handles into it, consistent copies, the right to change it. */
#define _GNU_SOURCE
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_STATE_FILE "/run/gpuwarden-sim/state"
#define HANDLE_MARK 0x5a00u
#define COPY_ATTEMPTS 2000
#define COPY_PAUSE_NS 500000 /* 2000 of them: the daemon died in the middle of a write */
#define HANG_PAUSE_NS 20000000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int users;
static bool unattached;
/* Never unmapped: a thread may hang inside a call when another one shuts the library down. */
static const struct sim_state *mapped;
static struct sim_state *mapped_for_writing;
static ino_t mapped_inode;

static const char *state_file(void)
{
	const char *path = secure_getenv("GPUWARDEN_SIM_STATE");
	return path && *path ? path : DEFAULT_STATE_FILE;
}

static void pause_ns(long ns)
{
	struct timespec time = {0, ns};
	nanosleep(&time, NULL);
}

uint32_t sim_load32(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

uint64_t sim_load64(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

const struct sim_state *sim_state(void)
{
	return __atomic_load_n(&users, __ATOMIC_ACQUIRE) ? mapped : NULL;
}

/* Maps the file the daemon published; keeps an earlier mapping if it is the same file. */
static nvmlReturn_t map_state(void)
{
	struct stat status;
	int fd = open(state_file(), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == EACCES ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_DRIVER_NOT_LOADED;
	if (fstat(fd, &status) || status.st_size < (off_t)sizeof(struct sim_state)) {
		close(fd);
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	}
	if (mapped && mapped_inode == status.st_ino) {
		close(fd);
		return mapped->driver_loaded ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
	}
	const struct sim_state *state =
		mmap(NULL, sizeof(struct sim_state), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (state == MAP_FAILED)
		return NVML_ERROR_UNKNOWN;
	if (state->magic != SIM_MAGIC || state->version != SIM_VERSION ||
	    state->size != sizeof(struct sim_state))
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	mapped = state;
	mapped_for_writing = NULL;
	mapped_inode = status.st_ino;
	return state->driver_loaded ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}

API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
	nvmlReturn_t result = NVML_SUCCESS;
	pthread_mutex_lock(&lock);
	if (users == 0) {
		result = map_state();
		unattached = flags & NVML_INIT_FLAG_NO_ATTACH;
	}
	if (result == NVML_SUCCESS)
		__atomic_store_n(&users, users + 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	return result;
}

/* As an H200's driver (580.159) does: started with NO_ATTACH, it counts no card and finds none. */
unsigned int sim_card_count(const struct sim_state *state)
{
	return unattached ? 0 : state->card_count;
}

API nvmlReturn_t nvmlInit_v2(void)
{
	return nvmlInitWithFlags(0);
}

API nvmlReturn_t nvmlInit(void)
{
	return nvmlInitWithFlags(0);
}

API nvmlReturn_t nvmlShutdown(void)
{
	nvmlReturn_t result = NVML_SUCCESS;
	pthread_mutex_lock(&lock);
	if (users == 0)
		result = NVML_ERROR_UNINITIALIZED;
	else
		__atomic_store_n(&users, users - 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	return result;
}

bool sim_is_lost(const struct sim_card *card, uint32_t attachment)
{
	return !sim_load32(&mapped->driver_loaded) || sim_has_fault(card, SIM_FAULT_LOST) ||
	       sim_load32(&card->control.attachment) != attachment;
}

/* Blocks the calling thread until the fault is cleared. A write to a file on a frozen file system
 * is an uninterruptible sleep in the kernel; without such a file it is an ordinary endless one. */
static void hang(const struct sim_card *card)
{
	while (sim_has_fault(card, SIM_FAULT_HANG)) {
		int fd = mapped->hang_file[0] ? open(mapped->hang_file, O_WRONLY | O_CLOEXEC) : -1;
		if (fd >= 0) {
			ssize_t written = write(fd, "x", 1);
			(void)written; /* what counts is that it came back */
			close(fd);
		}
		pause_ns(HANG_PAUSE_NS);
	}
}

nvmlReturn_t sim_handle_of(unsigned int index, nvmlDevice_t *device)
{
	const struct sim_card *card = &mapped->cards[index];
	hang(card);
	uint32_t attachment = sim_load32(&card->control.attachment);
	if (sim_is_lost(card, attachment))
		return NVML_ERROR_GPU_IS_LOST;
	*device = (nvmlDevice_t)(((uintptr_t)attachment << 16) | HANDLE_MARK | (index + 1));
	return NVML_SUCCESS;
}

nvmlReturn_t sim_card_of(nvmlDevice_t device, const struct sim_card **card)
{
	const struct sim_state *state = sim_state();
	uintptr_t value = (uintptr_t)device;
	unsigned int index = (unsigned int)(value & 0xff) - 1;
	if (!state)
		return NVML_ERROR_UNINITIALIZED;
	if ((value & 0xff00) != HANDLE_MARK || index >= state->card_count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*card = &state->cards[index];
	hang(*card);
	return sim_is_lost(*card, (uint32_t)(value >> 16)) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

static bool copy_sample(const struct sim_card *card, struct sim_sample *sample)
{
	for (int attempt = 0; attempt < COPY_ATTEMPTS; attempt++) {
		uint64_t before = sim_load64(&card->sequence);
		if (!(before & 1)) {
			memcpy(sample, &card->sample, sizeof *sample);
			__atomic_thread_fence(__ATOMIC_ACQUIRE);
			if (__atomic_load_n(&card->sequence, __ATOMIC_RELAXED) == before &&
			    sample->check == (uint32_t)sample->unix_us &&
			    sample->process_count <= SIM_MAX_PROCESSES)
				return true;
		}
		if (attempt > 100)
			pause_ns(COPY_PAUSE_NS);
	}
	return false;
}

nvmlReturn_t sim_sample_of(nvmlDevice_t device, const struct sim_card **card,
			   struct sim_sample *sample)
{
	nvmlReturn_t result = sim_card_of(device, card);
	if (result != NVML_SUCCESS)
		return result;
	return copy_sample(*card, sample) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

static bool caller_is_administrator(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}};
	if (syscall(SYS_capget, &header, data))
		return false;
	return (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN)) != 0;
}

static struct sim_state *map_for_writing(void)
{
	struct stat status;
	pthread_mutex_lock(&lock);
	if (!mapped_for_writing) {
		int fd = open(state_file(), O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !fstat(fd, &status) && status.st_ino == mapped_inode) {
			void *state = mmap(NULL, sizeof(struct sim_state), PROT_READ | PROT_WRITE,
					   MAP_SHARED, fd, 0);
			mapped_for_writing = state == MAP_FAILED ? NULL : state;
		}
		if (fd >= 0)
			close(fd);
	}
	pthread_mutex_unlock(&lock);
	return mapped_for_writing;
}

nvmlReturn_t sim_writable(nvmlDevice_t device, const struct sim_card **card,
			  struct sim_control **control)
{
	nvmlReturn_t result = sim_card_of(device, card);
	if (result != NVML_SUCCESS)
		return result;
	if (!caller_is_administrator() || sim_has_fault(*card, SIM_FAULT_NO_PERMISSION))
		return NVML_ERROR_NO_PERMISSION;
	struct sim_state *state = map_for_writing();
	if (!state)
		return NVML_ERROR_NO_PERMISSION;
	*control = &state->cards[*card - mapped->cards].control;
	return NVML_SUCCESS;
}

nvmlReturn_t sim_copy_text(char *target, unsigned int size, const char *text)
{
	size_t length = strlen(text) + 1;
	if (!target)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (length > size)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(target, text, length);
	return NVML_SUCCESS;
}
