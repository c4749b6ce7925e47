# SPDX-License-Identifier: Apache-2.0
"""Durable jobs: requests that survive restarts and power cuts, answered when there is time."""
