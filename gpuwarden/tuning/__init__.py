# SPDX-License-Identifier: Apache-2.0
"""Switches the host's tuned profile by time of day and puts the former one back; tunes nothing."""
