# SPDX-License-Identifier: Apache-2.0
"""The supervisor: workers' life cycle, the bus objects' values, the service."""
