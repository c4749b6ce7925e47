# SPDX-License-Identifier: Apache-2.0
"""A simulated NVIDIA driver: the physics of cards (plant), a daemon that steps it, a C library.

Belongs here: what stands in for hardware. Nothing here is imported by the service itself.
"""
