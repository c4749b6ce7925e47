# SPDX-License-Identifier: Apache-2.0
"""gpuwarden: the service that runs, places, cools and watches the model workers of a GPU node."""

__version__ = "0.1.0"
