# SPDX-License-Identifier: Apache-2.0
"""The test node: a Debian machine under QEMU that a test boots, hurts and throws away.

What belongs here: building its image, starting and restoring it, talking to it, replaying its
crashes.  What does not: what gpuwarden promises on it (that is ``tests/system``).
"""
