"""Train lines with the code on PYTHONPATH, and record what decides their results; `tests/compat.py` starts it.

    python -P tests/support/recording.py JOBS.json

A file of its own, which imports no other of these tests, since it runs with the code of older commits, too: it uses
only `config.load`, `fit`, the run id, the training batches, and Lightning's callbacks.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor


class Stopped(BaseException):
    """The process ends here, as if it were killed: nothing more is saved."""


def digest(*values: Any) -> str:
    """A hash of arrays, tensors or numbers: their values, types and shapes."""
    found = hashlib.sha256()
    for value in values:
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


class StepRecorder(L.Callback):
    """Records each step; ends the process at step `stop_after` + 1, so that the state of `stop_after` is the last."""

    def __init__(self, recording: dict[str, Any], draws: dict[tuple[int, int], dict[str, str]], stop_after: int | None):
        self._recording, self._draws, self._stop_after = recording, draws, stop_after
        self._inputs = ""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._recording["start"] = {"step": trainer.global_step, **_state(trainer, pl_module)}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._inputs = digest(batch[0])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step - 1 == self._stop_after:
            raise Stopped
        draws = self._draws.get((trainer.current_epoch, batch_idx), {})
        self._recording["steps"][str(trainer.global_step)] = {
            "draws": {**draws, "inputs": self._inputs},
            "loss": repr(float(outputs["loss"])),
            **_state(trainer, pl_module),
        }


def _state(trainer: L.Trainer, task: L.LightningModule) -> dict[str, dict[str, str]]:
    network: Any = task.network
    optimizer, parameters = trainer.optimizers[0], dict(network.named_parameters())
    buffers = {
        name: [value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor)]
        for name, parameter in parameters.items()
    }
    return {
        "weights": {name: digest(value) for name, value in network.state_dict().items()},
        "velocities": {name: digest(*values) for name, values in buffers.items() if values},
    }


@contextmanager
def recorded_steps(recording: dict[str, Any], stop_after: int | None) -> Iterator[None]:
    """Meanwhile every trainer has a `StepRecorder`, and training batches note what they are made of."""
    draws: dict[tuple[int, int], dict[str, str]] = {}
    batches: Any = import_module("alexlab.data.datamodule").TrainingBatches
    plain_batch, plain_start = batches.__getitem__, L.Trainer.__init__

    def read(self: Any, position: tuple[int, int]) -> Any:
        batch = plain_batch(self, position)
        draws[position] = _draws(batch, self.images(*position))
        return batch

    def start(self: L.Trainer, *arguments: Any, callbacks: Any = None, **named: Any) -> None:
        # Lightning calls it before the callbacks that save.
        recorder = StepRecorder(recording, draws, stop_after)
        plain_start(self, *arguments, callbacks=[recorder, *(callbacks or [])], **named)

    batches.__getitem__, L.Trainer.__init__ = read, start
    try:
        yield
    finally:
        batches.__getitem__, L.Trainer.__init__ = plain_batch, plain_start


def _draws(batch: Any, images: np.ndarray) -> dict[str, str]:
    windows = torch.as_tensor(batch.windows)  # a list with RESULTS_VERSION 1
    return {
        "images": digest(images),
        "labels": digest(batch.labels),
        "crops": digest(windows[:, :2]),
        "flips": digest(windows[:, 2]),
        "colours": digest(batch.shifts, batch.divisor),
        "pixels": digest(batch.crops),
    }


def run_identity(config: Any) -> dict[str, Any]:
    """The run id and what it is a hash of, as if this code were known; `unknown_code` if it is not."""
    identity: Any = import_module("alexlab.runs.identity")
    found: dict[str, Any] = {"results_version": identity.RESULTS_VERSION, "unknown_code": None}
    if hasattr(identity, "modified"):
        found["unknown_code"] = identity.modified(identity.RESULTS_VERSION)
        identity.modified = lambda version: None
    parts = [getattr(identity, name, None) for name in ("_chosen", "_content")]
    keys = {key: value for part in parts if part is not None for key, value in part(config).items()}
    return {**found, "run_id": identity.run_id(config), "keys": keys or identity.result_keys(config)}


def errors(folder: Path, outcome: Any) -> dict[str, str]:
    """What the run's errors follow from, and the weights of its best epoch."""
    found = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.update({f"{name} of epoch {row['epoch']}": value for name, value in row.items() if name != "epoch"})
    for kind, predictions in outcome.test.items():
        found[f"test probabilities ({kind})"] = digest(predictions.log_probability)
        found.update({f"test {name} ({kind})": repr(value) for name, value in predictions.errors().items()})
    found.update({f"training {name}": repr(value) for name, value in outcome.train.items()})
    best = folder / "checkpoints" / "best.ckpt"
    if best.is_file():
        state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
        found["best weights"] = digest(*(state[name] for name in sorted(state)))
    return found


def record(line: list[str], folder: Path, stop_after: int | None) -> dict[str, Any]:
    """Start or resume a line's run in a folder; `refused` says why the code does not train it."""
    recording: dict[str, Any] = {"steps": {}}
    try:
        config = import_module("alexlab.config").load(line)
        recording.update(run_identity(config))
        folder.mkdir(parents=True, exist_ok=True)
        with recorded_steps(recording, stop_after):
            outcome = import_module("alexlab.training.fit").fit(config, folder, folder.name)
        recording["errors"] = errors(folder, outcome)
    except Stopped:
        pass
    except Exception as error:
        recording["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return recording


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
        found = record(job["line"], Path(job["folder"]), job["stop_after"])
        path = Path(job["recording"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        print(job["folder"], flush=True)


if __name__ == "__main__":
    main()
