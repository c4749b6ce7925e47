# SPDX-License-Identifier: Apache-2.0
"""Cards that are not there: what they are, how they warm up, what the world does to them. Pure.

The simulated node and ``gpuwarden simulate`` both run on it.
"""
