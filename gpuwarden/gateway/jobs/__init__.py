"""Durable jobs: requests that survive restarts and power cuts, answered when there is time."""
