"""The identity of runs and arms: hashes of everything that determines a result, and labels."""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alexlab import own_net
from alexlab.config import Config, Dataset, Init, Schedule, shown, walk
from alexlab.data.locate import fingerprint
from alexlab.runs.code_fingerprint import modified
from alexlab.tree import flatten, yaml_files

# Increased whenever a change of the code changes a result's bits; tests/test_golden.py detects this.
RESULTS_VERSION = 2

SEEDS = ("seed", "data.seed")
DERIVED = ("data.crop_size", "data.map_size")  # also determined by conv1's padding, kernel and stride


def result_keys(config: Config) -> dict[str, Any]:
    """{dotted key: plain value} of the keys that can change a result; equal spellings give equal values."""
    return {name: _canonical(value) for name, value, entry in walk(config) if entry.metadata["identity"]}


def _canonical(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.12g}")
    return value


@cache
def silent_values() -> dict[str, Any]:
    """{key: the value at which it is left out of a run id}, from run_id_defaults.json.

    A new key is entered with the value that matches the behaviour before it, so that finished runs keep their ids. An
    entry is never changed, so a key whose default changes becomes part of the hash and gives a new id.
    """
    return json.loads(Path(__file__).with_name("run_id_defaults.json").read_text())


def run_id(config: Config) -> str:
    """The first 12 hex digits of a hash of everything that determines a result.

    Keys without effect are left out, so that equal results share an id, and so are keys at their silent values.
    """
    return _hash({**_chosen(config), **_content(config)})


def arm_id(config: Config) -> str:
    """The same hash without seeds: runs of one arm differ in nothing else."""
    keys = {name: value for name, value in _chosen(config).items() if name not in SEEDS}
    return _hash({**keys, **_content(config)})


def _chosen(config: Config) -> dict[str, Any]:
    silent, void = silent_values(), void_keys(config)
    keys = result_keys(config).items()
    return {
        name: value for name, value in keys if name not in void and not (name in silent and _same(value, silent[name]))
    }


def void_keys(config: Config) -> set[str]:
    """Keys that have no effect because of another key, such as LRN's constants without LRN."""
    model, augment, optim = config.model, config.augment, config.optim
    no_lrn = not model.lrn or not model.lrn_after
    no_colours = not augment.pca or augment.pca_until == 0
    no_drops = optim.schedule in (Schedule.constant, Schedule.linear)
    rules = {
        ("data.files_seed",): config.data.name is not Dataset.shapes,
        ("model.lrn_size", "model.lrn_k", "model.lrn_alpha", "model.lrn_beta", "model.lrn_per_tower"): no_lrn,
        ("trainer.fused_lrn",): no_lrn,
        ("model.lrn_scale",): no_lrn and not model.same_map_norm,
        ("model.lrn_after",): not model.lrn,
        ("model.cross_talk", "model.lrn_per_tower"): model.groups == 1,
        ("model.dropout_after", "model.dropout_scaling"): model.dropout == 0,
        ("model.init_std", "model.init_stds"): model.init is not Init.normal,
        ("model.init_last_std", "model.init_bias"): model.init is Init.torch,
        ("model.init_bias_layers",): model.init is Init.torch or model.init_bias == 0,
        ("augment.pca_std", "augment.pca_unit", "augment.pca_divisor", "augment.pca_until"): no_colours,
        ("augment.inclusive_offsets",): not augment.crop,
        ("augment.shared_by",): not augment.crop and not augment.flip,
        ("optim.drops",): optim.schedule is not Schedule.fixed,
        ("optim.num_drops", "optim.patience", "optim.threshold"): optim.schedule is not Schedule.plateau,
        ("optim.drop_factor",): no_drops and optim.conv1_cut_at is None,
    }
    void = {name for names, is_void in rules.items() if is_void for name in names}
    return {*void, *own_net.UNUSED_KEYS} if own_net.has_own_keys(config) else void


def _same(one: Any, other: Any) -> bool:
    """Compare as text: 1 == 1.0, but a limit of 1 is one step and a limit of 1.0 is all steps."""
    return json.dumps(one) == json.dumps(other)


def _content(config: Config) -> dict[str, Any]:
    content: dict[str, Any] = {"store": fingerprint(config.data), "results_version": RESULTS_VERSION}
    if (code := modified(RESULTS_VERSION)) is not None:
        content["code"] = code  # its results differ from those of the released code
    if config.optim.conv1_freeze_at is not None and config.optim.conv1_freeze_at < 1:
        content["conv1_freeze"] = 2  # in version 1 the velocity still moved conv1 after its rate was 0
    limit = config.trainer.limit_val_batches
    if limit and not _same(limit, 1.0):
        content["limited_validation"] = 2  # before, only the store's first images, of one or two classes
    if config.weights is not None:
        content["weights"] = hashlib.sha256(Path(config.weights).read_bytes()).hexdigest()
    return content


def _hash(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(config: Config, other: Config) -> dict[str, Any]:
    """{key: value in `config`} of the keys that can change a result and differ between the two, seeds aside."""
    keys, others, hidden = result_keys(config), result_keys(other), {*SEEDS, *void_keys(config)}
    return {name: keys[name] for name in keys if not _same(keys[name], others[name]) and name not in hidden}


def arm_label(config: Config, base: Config, folders: list[Path]) -> str:
    """The name of an arm: the ablation whose file makes the same change to `base`, or the change itself."""
    changed = differences(config, base)
    if not changed:
        return "none"
    if (build := changed.get("model.build")) is not None:
        changed["model.build"] = own_net.unpinned(build)
    for path in (path for folder in folders for path in yaml_files(folder)):
        files = _file_changes(path, base)
        if files and files == {name: value for name, value in changed.items() if name in files or name not in DERIVED}:
            return path.stem
    return spelled(changed)


def spelled(changes: dict[str, Any]) -> str:
    return " ".join(f"{name}={shown(value)}" for name, value in changes.items())


@cache
def _file_keys(path: Path, changed: int) -> dict[str, Any]:
    """The keys of a file, by dotted name; read again once it has changed."""
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    named = flatten(loaded) if isinstance(loaded, dict) else {}
    named.pop("defaults", None)
    return named


def _file_changes(path: Path, base: Config) -> dict[str, Any]:
    """The keys that an ablation's file would change in `base`."""
    try:
        named = dict(_file_keys(path, path.stat().st_mtime_ns))
        keys = result_keys(base)
        for name, _, entry in walk(base):
            if (entry.metadata["unordered"] or entry.metadata["by_layer"]) and isinstance(named.get(name), list):
                named[name] = sorted(named[name])
        # YAML reads 0 as an integer and 1e-2 as text, although the key is a float
        typed = {name: float(value) if isinstance(keys.get(name), float) else value for name, value in named.items()}
        return {name: _canonical(value) for name, value in typed.items() if keys.get(name) != _canonical(value)}
    except (OSError, ValueError, TypeError, YAMLError, OmegaConfBaseException):
        return {}  # a file that is not in use may contain anything
