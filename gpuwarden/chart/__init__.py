# SPDX-License-Identifier: Apache-2.0
"""Drawings of a card's hour: what to draw (pure), and SVG and PNG that show it."""
