# SPDX-License-Identifier: Apache-2.0
"""Who holds a card's memory. Looks and says; decides and ends nothing: the guard does."""
