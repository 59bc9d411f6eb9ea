"""The published name of `load_runs`."""

from alexlab.study.frames import load_runs

__all__ = ["load_runs"]
