# SPDX-License-Identifier: Apache-2.0
"""The only code that speaks to systemd: notify, journal, units. No policy here."""
