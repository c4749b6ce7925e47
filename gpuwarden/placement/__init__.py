# SPDX-License-Identifier: Apache-2.0
"""Which worker runs where: the plan (pure), its drop-ins, the oneshot service."""
