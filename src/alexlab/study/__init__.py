"""Studies: claims, records, statistics and verdicts. Only records are read, so a copy of `runs/` is enough."""
