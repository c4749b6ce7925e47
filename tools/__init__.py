# SPDX-License-Identifier: Apache-2.0
"""Tools that build what is shipped; nothing here is installed."""
