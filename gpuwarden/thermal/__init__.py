# SPDX-License-Identifier: Apache-2.0
"""The thermal guard of one card. No D-Bus in it, ever."""
