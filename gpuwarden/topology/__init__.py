# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of PCI devices, NUMA nodes and CPUs (sysfs). No NVML, no policy."""
