"""One run: its identity, its record, its lease, and the processes that train it."""
