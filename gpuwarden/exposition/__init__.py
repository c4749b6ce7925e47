# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus: what one is, and its text form. Which there are, each service says."""
