"""The thermal guard of one card. No D-Bus in it, ever."""
