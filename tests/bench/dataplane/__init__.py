# SPDX-License-Identifier: Apache-2.0
"""What the data plane costs, beside its peers: see docs/performance.md.

``served`` holds what runs in a peer's interpreter, and imports nothing of the rest.
"""
