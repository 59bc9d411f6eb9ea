"""Evidence: what records say. Reads records only, so it works wherever a copy of `runs/` lies."""

from alexlab.evidence.load import load_runs

__all__ = ["load_runs"]
