# SPDX-License-Identifier: Apache-2.0
"""A server with a port of its own as a model: its process, its readiness, its API, its figures."""
