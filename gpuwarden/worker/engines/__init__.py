# SPDX-License-Identifier: Apache-2.0
"""Engines: one model class each. An engine may import what it needs inside its methods."""
