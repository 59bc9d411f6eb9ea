"""One run: its identity, its record, the lease of it, and the processes that do it."""
