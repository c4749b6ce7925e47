# SPDX-License-Identifier: Apache-2.0
"""The only importer of pynvml: reading a card, one error vocabulary. No policy here."""
