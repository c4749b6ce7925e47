# SPDX-License-Identifier: Apache-2.0
"""The screen of ``gpuwarden top``: what it shows and what keys do is pure, the terminal is thin."""
