# SPDX-License-Identifier: Apache-2.0
"""The interfaces of org.gpuwarden1, one table a module, and what publishes them."""
