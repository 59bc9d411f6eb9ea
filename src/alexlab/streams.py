"""Named random streams: a seed of its own for everything that draws random numbers."""

from __future__ import annotations

import hashlib


def stream_seed(*names: object) -> int:
    """Return a seed in 0 .. 2**63 - 1 that depends on the names alone and is the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
