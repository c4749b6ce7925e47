# SPDX-License-Identifier: Apache-2.0
"""Whether this node will serve well: facts read from it, judged one subject at a time.

A module a subject: ``read`` takes what the node shows (below any root folder), ``judge`` is pure.
Nothing here changes anything, and nothing here waits for long. Printing is the command line's.
"""
