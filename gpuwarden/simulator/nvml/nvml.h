// SPDX-License-Identifier: Apache-2.0
/* The part of NVIDIA's NVML interface (API 13) that the simulator answers: names, values and
 * layouts as nvidia-ml-py 13 uses them. Functions are exported by their definition (API). */
#ifndef GPUWARDEN_SIM_NVML_H
#define GPUWARDEN_SIM_NVML_H

#define API __attribute__((visibility("default")))

#define NVML_INIT_FLAG_NO_ATTACH 2u

typedef void *nvmlDevice_t;
typedef struct sim_event_set *nvmlEventSet_t;

typedef enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
	NVML_ERROR_MEMORY = 20,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
	NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

/* A versioned structure carries its size and version in its first word. */
#define NVML_STRUCT_VERSION(type, number) ((unsigned int)(sizeof(type) | ((number) << 24)))

typedef struct {
	char busIdLegacy[16];
	unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
	char busId[32];
} nvmlPciInfo_t;

typedef struct {
	unsigned int version;
	unsigned int sensorType;
	int temperature;
} nvmlTemperature_t;

typedef struct {
	unsigned int version;
	int marginTemperature;
} nvmlMarginTemperature_t;

typedef struct {
	unsigned int version;
	unsigned int powerScope;
	unsigned int powerValueMw;
} nvmlPowerValue_v2_t;

typedef struct {
	unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
	unsigned int version;
	unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
	unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
	unsigned int pid;
	unsigned long long usedGpuMemory;
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
	unsigned int pid;
	unsigned long long timeStamp;
	unsigned int smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct {
	unsigned long long referenceTime, violationTime;
} nvmlViolationTime_t;

typedef union {
	double dVal;
	unsigned int uiVal;
	unsigned long long ullVal;
	int siVal;
} nvmlValue_t;

typedef struct {
	unsigned int fieldId, scopeId;
	long long timestamp, latencyUsec;
	unsigned int valueType;
	nvmlReturn_t nvmlReturn;
	nvmlValue_t value;
} nvmlFieldValue_t;

typedef struct {
	nvmlDevice_t device;
	unsigned long long eventType, eventData;
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

enum { NVML_VALUE_TYPE_UNSIGNED_INT = 1, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
       NVML_VALUE_TYPE_SIGNED_INT = 5 };

enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO };

enum { NVML_TEMPERATURE_THRESHOLD_SHUTDOWN, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
       NVML_TEMPERATURE_THRESHOLD_MEM_MAX, NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
       NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN, NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR,
       NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX, NVML_TEMPERATURE_THRESHOLD_GPS_CURR,
       NVML_TEMPERATURE_THRESHOLD_COUNT };

enum { NVML_PERF_POLICY_POWER = 0, NVML_PERF_POLICY_THERMAL = 1, NVML_PERF_POLICY_COUNT = 12 };

#define NVML_ARCH_AMPERE 7u
#define NVML_TEMPERATURE_GPU 0u
#define NVML_POWER_SCOPE_GPU 0u
#define NVML_VIRTUALIZATION_MODE_PASSTHROUGH 1u
#define NVML_NO_INSTANCE 0xffffffffu
#define NVML_VALUE_NOT_AVAILABLE 0xffffffffffffffffull

#endif
