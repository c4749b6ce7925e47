# SPDX-License-Identifier: Apache-2.0
"""A day of mixed load in little time, and what the processes hold at its end.

``campaign`` makes a table of it, on a node or on this host; the rest runs where the service does.
"""
