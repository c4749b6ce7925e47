# SPDX-License-Identifier: Apache-2.0
"""medgemma-metrics: the node's state for Prometheus. It reads what the others publish, no more."""
