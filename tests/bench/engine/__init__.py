# SPDX-License-Identifier: Apache-2.0
"""The transformers engine on a real card, through the front door, beside a naive loop.

It runs where torch and transformers are and needs no systemd: gateway and worker are processes of
its own. Random weights: figures of speed alone, without any medical meaning. Nothing on the card
is set.
"""
