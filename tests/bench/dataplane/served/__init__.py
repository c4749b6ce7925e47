# SPDX-License-Identifier: Apache-2.0
"""One model behind each system: the same work for all of them."""
