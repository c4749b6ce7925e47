# SPDX-License-Identifier: Apache-2.0
"""The worker runtime, on the site's interpreter: standard library only, from Python 3.9 on."""
