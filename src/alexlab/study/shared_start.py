"""Arms whose runs start from the base's initial weights, so that runs of one seed can be compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from alexlab.architecture import layers
from alexlab.config import Config
from alexlab.errors import UserError
from alexlab.study.records import Archive, RunData


def arms_from_base(base: RunData, others: Mapping[str, RunData], archive: Archive) -> list[str]:
    """The arms whose nets start from the base's initial weights on the same seeds, by a run of each."""
    found = []
    for arm, run in others.items():
        with suppress(UserError):  # a configuration that cannot be read shares nothing
            if starts_alike(archive.config(base), archive.config(run)):
                found.append(arm)
    return found


def starts_alike(first: Config, second: Config) -> bool:
    """Whether two nets have the same layers with weights and, on the same seed, the same initial weights."""

    def start(config: Config) -> list[Any]:
        model = config.model
        if model.build is not None:  # whose layers are not known here
            return [model.build, config.weights]
        shapes = [(one.name, one.inputs, one.outputs, one.kernel, one.groups, one.shared) for one in layers(config)]
        sides = [one.side for one in layers(config) if not one.shared]
        return [shapes, sides, model.init, model.init_std, model.init_stds, model.init_last_std, config.weights]

    return start(first) == start(second)
