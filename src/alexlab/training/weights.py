"""Weights files: reading them, under whichever names they were saved, and checking that they fit a network."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Set
from typing import Any

import torch
from torch import nn

from alexlab.config import ConfigError
from alexlab.data.store import class_difference

log = logging.getLogger(__name__)

# The layers of torchvision's `alexnet` by their names in its state dict.
_TORCHVISION = {
    **{"features.0": "conv1", "features.3": "conv2", "features.6": "conv3", "features.8": "conv4"},
    **{"features.10": "conv5", "classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8"},
}
_WRAPPERS = ("_orig_mod", "module")  # torch.compile and DistributedDataParallel add these to names
_PREFIX = "network."  # of the network in a ClassificationTask


def load_weights(
    network: nn.Module, path: str, fresh_last: bool = True, classes: list[str] | None = None
) -> list[str] | None:
    """Load another network's weights; return the names of its classes, if the file has them.

    The last layer keeps its initial weights if the file has another number of classes, or other names than `classes`.
    With `fresh_last=False`, as for evaluation, it must fit too; `check_classes` compares the names.

    Raises:
        ConfigError: if any other layer differs, or a value is not a finite floating-point number.
    """
    own = network.state_dict()
    state, names = _read(path, own.keys())
    difference = class_difference(names, classes) if names is not None and classes is not None else ""
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ConfigError(
            f"weights={path}: has {unknown[0]}, which this network lacks; it was trained with another `model`"
        )
    for name in own:
        if name not in state:
            raise ConfigError(f"weights={path}: has no {name}; it was trained with another `model`")
        is_last = name.startswith("fc8.")
        if difference and is_last:
            log.warning("weights: %s is for other classes (%s), so it keeps its initial values", name, difference)
            state[name] = own[name]
            continue
        if state[name].shape != own[name].shape:
            if is_last and fresh_last:
                log.warning("weights: %s has another shape, so it keeps its initial values", name)
                state[name] = own[name]
                continue
            theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
            hint = f"; set data.num_classes={theirs[0]}" if is_last and theirs[1:] == ours[1:] else ""
            raise ConfigError(f"weights={path}: {name} is {theirs}, this network's is {ours}{hint}")
        problem = _problem(state[name], own[name])
        if problem:
            raise ConfigError(f"weights={path}: {name} {problem}")
    network.load_state_dict({name: state[name] for name in own})
    return names


def check_classes(path: str, names: list[str] | None, classes: list[str]) -> None:
    """Raise ConfigError if a weights file has other classes than the data, or in another order."""
    if names is not None and (difference := class_difference(names, classes)):
        raise ConfigError(
            f"weights={path}: trained on other classes: here {difference}; use the data it was trained on"
        )


def _read(path: str, own: Set[str]) -> tuple[dict[str, torch.Tensor], list[str] | None]:
    """Read weights onto the CPU, under the network's names, and the names of the classes if the file has them.

    Reads our checkpoints, bare state dicts, and state dicts of torchvision's `alexnet`. `own`: the network's names.

    Raises:
        ConfigError: if the file is something else, or has two entries for one parameter.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = str(error).split("\n")[0].split(". ")[0]
        raise ConfigError(f"weights={path}: is not a checkpoint of plain tensors ({why})") from error
    classes = content.get("classes") if isinstance(content, dict) and "state_dict" in content else None
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ConfigError(f"weights={path}: its classes are not a list of names")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ConfigError(f"weights={path}: holds no state dict of tensors")
    plain = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    if plain.keys() == own and len(plain) == len(state):  # a net of one's own may have layers called module
        return plain, classes
    unwrapped = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in state}
    ours = {name: _our_name(short.removeprefix(_PREFIX), own) for name, short in unwrapped.items()}
    for name, count in Counter(ours.values()).items():
        if count > 1:
            entries = " and ".join(entry for entry, our_name in ours.items() if our_name == name)
            raise ConfigError(f"weights={path}: has {count} entries for {name}: {entries}; remove the wrong ones")
    if any(short.startswith(_PREFIX) for short in unwrapped.values()):
        ours = {name: our_name for name, our_name in ours.items() if unwrapped[name].startswith(_PREFIX)}
    return {our_name: state[name] for name, our_name in ours.items()}, classes


def _our_name(name: str, own: Set[str]) -> str:
    """AlexNet's name for one of torchvision's; a net of one's own may have layers with the same names."""
    layer, dot, kind = name.rpartition(".")
    translated = _TORCHVISION.get(layer, layer) + dot + kind
    return translated if translated in own and name not in own else name


def _problem(value: torch.Tensor, own: torch.Tensor) -> str:
    """Why a tensor cannot be the value of a parameter or buffer; empty if it can."""
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return "is not a dense tensor; save it as one"
    if own.is_floating_point() and not value.is_floating_point():
        return f"has the type {str(value.dtype).removeprefix('torch.')}; save it as float32"
    num_bad = int((~value.to(own.dtype).isfinite()).sum())
    counts = f"{num_bad} of {value.numel()}"
    return f"has non-finite values ({counts}); use weights of a run that did not diverge" if num_bad else ""
