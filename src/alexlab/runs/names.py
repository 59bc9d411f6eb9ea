"""Display names of runs: the arm and, apart from it, the settings that only change the scale."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from alexlab.config import CONF_DIR, shown
from alexlab.tree import flatten, read_yaml

_CHANGE = re.compile(r" (?=[a-z][a-z_0-9]*(?:\.[a-z_0-9]+)+=)")  # between changes, whose values may hold spaces
_SCALE = ("data.", "trainer.")  # keys that set how much is trained and tested, rather than what
BASE = "none"


@dataclass(frozen=True)
class RunName:
    """The differences of a run from its recipe."""

    ablations: tuple[str, ...] = ()
    changes: dict[str, str] = field(default_factory=dict)  # {key: value} that no ablation's file sets
    settings: dict[str, str] = field(default_factory=dict)  # the same for keys that only set the scale

    @property
    def arm(self) -> str:
        """The ablations and the changes, such as `no_lrn optim.lr=0.02`; `none` without any."""
        return " ".join([*self.ablations, *(f"{key}={value}" for key, value in self.changes.items())]) or BASE

    @property
    def noted(self) -> str:
        """The settings, such as `data.train_images=300 trainer.max_epochs=2`."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


def split_changes(label: str) -> list[str]:
    """The changes that a label `ablation` spells, such as `["model.lrn=false", "optim.lr=0.02"]`."""
    return [change for change in _CHANGE.split(label) if "=" in change]


def run_name(label: str, keys: Mapping[str, Any] | None = None) -> RunName:
    """Name a run by its label `ablation`, which spells out all changes unless an ablation's file makes exactly these.

    `keys`: its configuration by dotted keys. Without it an ablation is recognised only if all its keys differ from the
    recipe.
    """
    if "=" not in label:
        return RunName((label,) if label != BASE else ())
    changed = dict(change.split("=", 1) for change in split_changes(label))
    found = []
    for name, files in _ablations():
        own = {key for key in files if key in changed}
        is_made = own and all(
            (changed.get(key) if keys is None else shown(keys.get(key))) in values for key, values in files.items()
        )
        if is_made:
            found.append(name)
            changed = {key: value for key, value in changed.items() if key not in own}
    scale = {key: value for key, value in changed.items() if key.startswith(_SCALE)}
    return RunName(tuple(found), {key: value for key, value in changed.items() if key not in scale}, scale)


@cache
def _ablations() -> list[tuple[str, dict[str, set[str]]]]:
    """The project's ablations with the spellings of their values; those that change most first."""
    found = []
    for path in sorted((CONF_DIR / "ablation").glob("*.yaml")):
        keys = flatten(read_yaml(path) or {})
        keys.pop("defaults", None)
        if keys:
            found.append((path.stem, {key: _spellings(value) for key, value in keys.items()}))
    return sorted(found, key=lambda one: -len(one[1]))


def _spellings(value: Any) -> set[str]:
    """A value as written and, for a list, also sorted: a configuration sorts lists whose order is irrelevant."""
    lists = [value, sorted(value)] if isinstance(value, list) else [value]
    return {shown(one) for one in lists}
