# SPDX-License-Identifier: Apache-2.0
"""Writes the manual pages from what they are about, so that they can't drift from it."""
