"""Engines: one model class each. An engine may import what it needs inside its methods."""
