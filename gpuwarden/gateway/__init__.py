# SPDX-License-Identifier: Apache-2.0
"""The front door: HTTP, bodies, queue, dispatch to workers."""
