"""Tools that build what is shipped; nothing here is installed."""
