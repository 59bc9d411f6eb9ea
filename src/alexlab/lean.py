"""Loads torchmetrics without the packages of its metrics that are not used here.

torchmetrics, and so Lightning, loads SciPy, Matplotlib and torchvision wherever they are installed: half of the seconds
in which a run starts. The servers of processes that train import this first (`alexlab.runs.process.start_server`);
a process of the user's never does, since in it torchmetrics would lack those metrics.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from unittest.mock import patch

UNUSED = ("matplotlib", "scipy", "torchvision", "transformers")

with suppress(ImportError, AttributeError):  # of a release that looks for packages in another way: it loads them all
    from lightning_utilities.core import imports

    _is_met, _is_there = imports.RequirementCache.__bool__, imports.package_available

    def _is_used(requirement: Any) -> bool:
        return not (requirement.requirement or "").startswith(UNUSED) and _is_met(requirement)

    with (
        patch.object(imports.RequirementCache, "__bool__", _is_used),
        patch.object(imports, "package_available", lambda name: name not in UNUSED and _is_there(name)),
    ):
        import torchmetrics  # noqa: F401
