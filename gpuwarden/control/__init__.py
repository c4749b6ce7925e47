# SPDX-License-Identifier: Apache-2.0
"""State snapshots and control sockets between our own processes."""
