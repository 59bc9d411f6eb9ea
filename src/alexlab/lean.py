"""Import torchmetrics without the optional packages that only unused metrics need.

torchmetrics, and with it Lightning, imports SciPy, Matplotlib and torchvision wherever they are installed, which takes
half of a run's start-up time (torchmetrics #3457). The fork servers of training processes import this module first
(`alexlab.runs.process.start_server`). A user's own process never does: torchmetrics would lack those metrics there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from unittest.mock import patch

UNUSED = ("matplotlib", "scipy", "torchvision", "transformers")

with suppress(ImportError, AttributeError):  # a release that detects packages differently imports them all
    from lightning_utilities.core import imports

    _is_met, _is_available = imports.RequirementCache.__bool__, imports.package_available

    def _is_used(requirement: Any) -> bool:
        return not (requirement.requirement or "").startswith(UNUSED) and _is_met(requirement)

    with (
        patch.object(imports.RequirementCache, "__bool__", _is_used),
        patch.object(imports, "package_available", lambda name: name not in UNUSED and _is_available(name)),
    ):
        import torchmetrics  # noqa: F401
