"""Switches the host's tuned profile by time of day and puts the former one back; tunes nothing."""
