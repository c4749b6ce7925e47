"""The supervisor: workers' life cycle, the bus objects' values, the service."""
