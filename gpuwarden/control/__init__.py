"""State snapshots and control sockets between our own processes."""
