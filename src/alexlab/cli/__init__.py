"""Commands: what is typed, and what is printed."""
