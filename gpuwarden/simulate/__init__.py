# SPDX-License-Identifier: Apache-2.0
"""A guard's policy against a card that is not there: rehearsals and what they were worth. Pure."""
