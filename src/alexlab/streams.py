"""Random streams of their own: one for each thing that draws, named by what it is for."""

from __future__ import annotations

import hashlib


def stream(*names: object) -> int:
    """A seed in 0 .. 2**63 - 1 that depends on all the names and on nothing else, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
