"""The front door: HTTP, bodies, queue, dispatch to workers."""
