# SPDX-License-Identifier: Apache-2.0
"""500 random kills of random parts under load.

``campaign`` puts the rest into a node and makes a table of what it tells; all but that module runs
in the node itself, in one interpreter, on gpuwarden's modules: where every question to the node is
a new process, the asking takes longer than a part's whole return.
"""
