# SPDX-License-Identifier: Apache-2.0
"""What a node does over a time, recorded, and two recordings compared: one change at a time."""
