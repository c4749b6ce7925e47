"""A simulated card: plant physics, NVML library (C), daemon, command line."""
