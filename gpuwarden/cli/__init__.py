"""The gpuwarden command."""
