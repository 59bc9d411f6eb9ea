"""Runs: their plan, their records, and the process that does one."""
