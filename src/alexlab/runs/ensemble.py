"""Test errors of finished runs' nets, alone and as an ensemble (section 6)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from alexlab import threads
from alexlab.compose import read_config
from alexlab.config import Config, ConfigError, did_you_mean
from alexlab.data import build_datamodule
from alexlab.data.locate import fingerprint, has_store, store_path
from alexlab.errors import UserError, one_line
from alexlab.progress import Progress
from alexlab.runs.record import Record, find_records
from alexlab.validate import finish

if TYPE_CHECKING:  # torch takes seconds to load, and mistakes are reported without it
    from torch import nn

    from alexlab.data.datamodule import StoreDataModule
    from alexlab.training.evaluate import EnsembleMember, Predictions

EVALUATE_KEYS = ("checkpoint", "average")  # of `evaluate`: may differ from those that the runs were evaluated with
PLACES = ("cache", "root", "stage")  # of `data`: the store's location on this machine, not the recorded one


@dataclass(frozen=True)
class DoneRun:
    """A finished run, and the configuration to evaluate it with."""

    record: Record
    config: Config  # its own, except for the location of its data and what the command line sets
    test: dict[str, Any]  # the recorded errors; empty if they are for another checkpoint or average over views

    @property
    def checkpoint(self) -> Path:
        return self.record.file(f"checkpoints/{self.config.evaluate.checkpoint.name}.ckpt")


def read_done(run_id: str, settings: Config, names: list[str]) -> DoneRun:
    """Read a finished run, with the keys `names` and the location of the store from `settings`.

    No path in a record is followed, since the record may be untrusted.

    Raises:
        UserError: if it does not exist, is not done, or was trained on data other than those on this machine.
    """
    folder = Path(settings.paths.runs)
    known = [record.run_id for record in find_records(folder)]
    if run_id not in known:
        longer = [name for name in known if name.startswith(run_id)]
        near = f"; write it in full, {longer[0]}" if longer else did_you_mean(run_id, known)
        hint = near or "; paths.runs=FOLDER looks elsewhere"
        raise UserError(f"runs: there is no run '{run_id}' in {folder}{hint}")
    record = Record(folder, run_id)
    if not record.is_done:
        state = record.status().get("state")
        raise UserError(f"runs: {run_id} is {state}, not DONE; train it to its end or leave it out")
    config = read_config(record.file("config.yaml"), stored=False)
    recorded = [getattr(config.evaluate, name) for name in EVALUATE_KEYS]
    for name in names:
        section, _, key = name.partition(".")
        setattr(getattr(config, section), key, getattr(getattr(settings, section), key))
    for name in PLACES:
        setattr(config.data, name, getattr(settings.data, name))
    config.paths.code = settings.paths.code
    finish(config)
    trained_on = record.result().get("data", {}).get("store")  # missing in older records
    if trained_on is not None and trained_on != fingerprint(config.data):
        raise UserError(
            f"runs: {run_id} was trained on the data {trained_on}, but the store here has {fingerprint(config.data)}; "
            "set data.root to its store"
        )
    is_recorded = recorded == [getattr(config.evaluate, name) for name in EVALUATE_KEYS]
    return DoneRun(record, config, record.result().get("test", {}) if is_recorded else {})


def in_common(runs: list[DoneRun]) -> dict[str, str]:
    """The evaluation keys that all runs share; refuses runs that cannot form an ensemble."""
    first, data = runs[0], fingerprint(runs[0].config.data)
    for run in runs:
        pair, other = (first.record.run_id, run.record.run_id), fingerprint(run.config.data)
        if other != data:
            raise UserError(f"runs: {pair[0]} has the data {data}, {pair[1]} has {other}; an ensemble has one data set")
        for name in EVALUATE_KEYS:
            mine, theirs = (getattr(one.config.evaluate, name).name for one in (first, run))
            if mine != theirs:
                raise ConfigError(f"evaluate.{name}: {pair[0]} has {mine}, {pair[1]} has {theirs}; set it for all")
    return {name: getattr(first.config.evaluate, name).name for name in EVALUATE_KEYS}


def check_files(run: DoneRun) -> None:
    """Raise UserError unless the run's weights and its store exist; an evaluation prepares no data."""
    if not run.checkpoint.is_file():
        hint = "set evaluate.checkpoint or leave the run out"
        raise UserError(f"runs: {run.record.run_id} has no {run.checkpoint}; {hint}")
    if not has_store(run.config.data):
        raise UserError(
            f"runs: {run.record.run_id} has no store at {store_path(run.config.data)}; set data.cache=FOLDER (or "
            "ALEXLAB_CACHE) to where its data were prepared"
        )


def compute(runs: list[DoneRun], settings: Config) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """Compute the ensemble's result and predictions, and each net's own errors if its record lacks them."""
    started = time.monotonic()
    batch_size = min(run.config.data.eval_batch_size for run in runs)
    for run in runs:
        run.config.data.eval_batch_size = batch_size  # all nets see the same batches
    nets = [(run.config, run.checkpoint) for run in runs]
    alone = [number for number, run in enumerate(runs) if not run.test]
    device, (test, *singles) = evaluate_nets(nets, alone, settings, f"evaluating {count_of_nets(runs)}")
    computed = dict(zip(alone, map(errors_of, singles), strict=True))
    errors = [run.test or computed[number] for number, run in enumerate(runs)]
    result = {
        "device": device,
        "seconds": round(time.monotonic() - started, 1),
        "members": {
            run.record.run_id: {
                "labels": run.record.status()["labels"],
                "seed": run.config.seed,
                "data_seed": run.config.data.seed,
                "test": own,
            }
            for run, own in zip(runs, errors, strict=True)
        },
        "mean": {
            kind: {name: mean(own[kind][name] for own in errors) for name in predictions.errors()}
            for kind, predictions in test.items()
        },
        "test": errors_of(test),
    }
    return result, test


def load_network(config: Config, weights: Path) -> tuple[nn.Module, StoreDataModule]:
    """Load a network with the weights of a file, in their precision, and the data to use it on.

    Raises:
        UserError: if the weights do not fit this network or have other classes, or the store is corrupt.
    """
    import torch

    from alexlab.models import build_model
    from alexlab.training.weights import check_classes, load_weights

    network = build_model(config)
    if config.trainer.precision == "64-true":
        network.to(torch.float64)
    names = load_weights(network, str(weights), fresh_last=False)
    data = build_datamodule(config)
    try:
        data.setup()
    except ValueError as error:
        raise UserError(str(error)) from error
    check_classes(str(weights), names, data.store.classes)
    return network, data


def evaluate_nets(
    nets: list[tuple[Config, Path]], alone: list[int], settings: Config, title: str
) -> tuple[str, list[dict[str, Predictions]]]:
    """Evaluate the ensemble of all nets, then each net whose index is in `alone`; return the device and predictions.

    A net is a configuration and its weights file. Device and determinism follow `settings`, as in training.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from alexlab.training.evaluate import EnsembleMember, evaluate
    from alexlab.training.fit import build_trainer, device_name, quiet

    threads.use(threads.of_command())
    quiet()
    trainer = replace(settings.trainer, precision="32-true")  # evaluation has the precision of the weights
    try:
        device = build_trainer(replace(settings, trainer=trainer), title).strategy.root_device
    except MisconfigurationException as error:
        message = one_line(error)
        raise ConfigError(f"trainer.accelerator={trainer.accelerator.name}: {message} Set it to auto or cpu") from error
    members = []
    for config, path in nets:
        network, data = load_network(config, path)
        loader = data.evaluation_dataloader("test")
        members.append(EnsembleMember(network.to(device), loader, data, config.evaluate.average, str(path)))
    groups: list[list[EnsembleMember]] = [members, *([members[number]] for number in alone)]
    images = len(members[0].data.split("test"))
    with Progress(title, images * len(groups), transient=True) as progress:
        predictions = [evaluate(group, device, advance=progress.advance) for group in groups]
    return device_name(device), predictions


def errors_of(test: dict[str, Predictions]) -> dict[str, Any]:
    return {"images": len(test["ten"].labels), **{kind: found.errors() for kind, found in test.items()}}


def count_of_nets(items: list[Any]) -> str:
    return f"{len(items)} nets" if len(items) > 1 else "1 net"
